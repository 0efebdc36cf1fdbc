// SPDX-License-Identifier: MIT
// Picks, once, the widest instruction set that this processor has, and lists the kernels of each backend.
#include "kernels/dispatch.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/dispersion.hpp"
#include "kernels/error.hpp"
#include "kernels/kernel_list.hpp"
#include "kernels/portable/memory.hpp"

namespace macekit {

#if defined(__x86_64__) && !defined(MACEKIT_GENERIC_ONLY)
#define MACEKIT_FOR_EACH_ISA(F) F(generic) F(avx2) F(avx512)
#else
#define MACEKIT_FOR_EACH_ISA(F) F(generic)
#endif

Isa instruction_set() {
  static const Isa chosen = [] {
    Isa best = Isa::generic;
#if defined(__x86_64__) && !defined(MACEKIT_GENERIC_ONLY)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = Isa::avx2;
    if (best == Isa::avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
      best = Isa::avx512;
#endif
    if (const char* wish = std::getenv("MACEKIT_ISA")) {
      const Isa known[] = {Isa::generic, Isa::avx2, Isa::avx512};
      bool found = false;
      for (Isa isa : known)
        if (std::strcmp(wish, name(isa)) == 0) {
          require<InputError>(isa <= best, "MACEKIT_ISA asks for ", wish, ", which this processor or build lacks; the best here is ", name(best), ".");
          best = isa, found = true;
        }
      require<InputError>(found, "MACEKIT_ISA is '", wish, "'; known are generic, avx2 and avx512.");
    }
    return best;
  }();
  return chosen;
}

const char* name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic"; }

MACEKIT_FOR_EACH_ISA(MACEKIT_DECLARE_KERNELS)
MACEKIT_DECLARE_KERNELS(portable)

const char* name(Backend backend) { return backend == Backend::simd ? "simd" : "portable"; }

namespace {
const Memory host_memory = {
    [](std::size_t bytes) {
      void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
      if (!p) throw std::bad_alloc();
      return p;
    },
    [](void* p) { std::free(p); }, [](void* p, std::size_t bytes) { std::memset(p, 0, bytes); },
    [](void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); },
    [](void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }};
}  // namespace
const Memory& memory(Backend backend) { return backend == Backend::simd ? host_memory : portable::device_memory(); }

template <class N>
const Kernels<N>& kernels(Backend backend) {
  if (backend == Backend::portable) return portable::list<N>();
  switch (instruction_set()) {
#define MACEKIT_CASE(isa) \
  case Isa::isa: return isa::list<N>();
    MACEKIT_FOR_EACH_ISA(MACEKIT_CASE)
    default: return generic::list<N>();
  }
}

template <class T>
double multiply_adds(long rounds) {
  switch (instruction_set()) {
#define MACEKIT_PEAK(isa) \
  case Isa::isa: return isa::multiply_adds<T>(rounds);
    MACEKIT_FOR_EACH_ISA(MACEKIT_PEAK)
    default: return generic::multiply_adds<T>(rounds);
  }
}
template double multiply_adds<double>(long);
template double multiply_adds<float>(long);

#define MACEKIT_DISPERSION(isa)                                                                                                   \
  namespace isa {                                                                                                                 \
  double coordination(const DispersionTables&, int, const int*, Shell&);                                                          \
  void dispersion_pairs(const DispersionTables&, const DispersionAtom&, const int*, const double*, Shell&, DispersionSums&);      \
  void coordination_forces(const DispersionTables&, int, double, const int*, const double*, Shell&, DispersionSums&);            \
  static const DispersionKernels dispersion = {coordination, dispersion_pairs, coordination_forces};                             \
  }
MACEKIT_FOR_EACH_ISA(MACEKIT_DISPERSION)

const DispersionKernels& dispersion_kernels() {
  switch (instruction_set()) {
#define MACEKIT_DISPERSION_CASE(isa) \
  case Isa::isa: return isa::dispersion;
    MACEKIT_FOR_EACH_ISA(MACEKIT_DISPERSION_CASE)
    default: return generic::dispersion;
  }
}

#define MACEKIT_KERNELS(N) template const Kernels<N>& kernels<N>(Backend);
MACEKIT_FOR_EACH_NUMBER(MACEKIT_KERNELS)

}  // namespace macekit
