// SPDX-License-Identifier: MIT
// Picks, once, the widest instruction set that this processor has, and forwards every kernel to it.
#include <cstdlib>
#include <cstring>

#include "kernels/contraction.hpp"
#include "kernels/convolution.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/error.hpp"
#include "kernels/geometry.hpp"
#include "kernels/linear.hpp"
#include "kernels/radial.hpp"
#include "kernels/readout.hpp"

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

#define MACEKIT_DECLARE(isa)                                                                                                      \
  namespace isa {                                                                                                                 \
  template <class N> void geometry(const GeometryArgs<N>&);                                                                       \
  template <class N> void geometry_adjoint(const GeometryAdjointArgs<N>&);                                                        \
  template <class N> void radial(const RadialArgs<N>&);                                                                           \
  template <class N> void radial_adjoint(const RadialAdjointArgs<N>&);                                                            \
  template <class N> void convolution(const ConvolutionArgs<N>&);                                                                 \
  template <class N> void convolution_adjoint(const ConvolutionAdjointArgs<N>&);                                                  \
  template <class N> void linear(const LinearArgs<N>&);                                                                           \
  template <class N> void linear_adjoint(const LinearAdjointArgs<N>&);                                                            \
  template <class N> void contraction(const ContractionArgs<N>&);                                                                 \
  template <class N> void contraction_adjoint(const ContractionAdjointArgs<N>&);                                                  \
  template <class N> void readout(const ReadoutArgs<N>&);                                                                         \
  template <class N> void readout_adjoint(const ReadoutAdjointArgs<N>&);                                                          \
  template <class N> void embed_species(int, const int*, int, const scalar_t<N>*, scalar_t<N>*);                                  \
  template <class N> void embed_species_adjoint(int, const int*, int, const scalar_t<N>*, scalar_t<N>*);                          \
  }
MACEKIT_FOR_EACH_ISA(MACEKIT_DECLARE)

#if defined(__x86_64__) && !defined(MACEKIT_GENERIC_ONLY)
#define MACEKIT_CALL(N, call)                           \
  switch (instruction_set()) {                          \
    case Isa::avx512: return avx512::call;              \
    case Isa::avx2: return avx2::call;                  \
    case Isa::generic: return generic::call;            \
  }
#else
#define MACEKIT_CALL(N, call) return generic::call;
#endif

#define MACEKIT_FORWARD(function, Args) \
  template <class N> void function(const Args<N>& args) { MACEKIT_CALL(N, function<N>(args)) }
MACEKIT_FORWARD(geometry, GeometryArgs)
MACEKIT_FORWARD(geometry_adjoint, GeometryAdjointArgs)
MACEKIT_FORWARD(radial, RadialArgs)
MACEKIT_FORWARD(radial_adjoint, RadialAdjointArgs)
MACEKIT_FORWARD(convolution, ConvolutionArgs)
MACEKIT_FORWARD(convolution_adjoint, ConvolutionAdjointArgs)
MACEKIT_FORWARD(linear, LinearArgs)
MACEKIT_FORWARD(linear_adjoint, LinearAdjointArgs)
MACEKIT_FORWARD(contraction, ContractionArgs)
MACEKIT_FORWARD(contraction_adjoint, ContractionAdjointArgs)
MACEKIT_FORWARD(readout, ReadoutArgs)
MACEKIT_FORWARD(readout_adjoint, ReadoutAdjointArgs)
template <class N> void embed_species(int rows, const int* species, int channels, const scalar_t<N>* w, scalar_t<N>* h) {
  MACEKIT_CALL(N, embed_species<N>(rows, species, channels, w, h))
}
template <class N> void embed_species_adjoint(int rows, const int* species, int channels, const scalar_t<N>* h_bar, scalar_t<N>* w_bar) {
  MACEKIT_CALL(N, embed_species_adjoint<N>(rows, species, channels, h_bar, w_bar))
}

#define MACEKIT_INSTANTIATE(N)                                       \
  template void geometry<N>(const GeometryArgs<N>&);                 \
  template void radial<N>(const RadialArgs<N>&);                     \
  template void radial_adjoint<N>(const RadialAdjointArgs<N>&);      \
  template void convolution<N>(const ConvolutionArgs<N>&);           \
  template void convolution_adjoint<N>(const ConvolutionAdjointArgs<N>&); \
  template void linear<N>(const LinearArgs<N>&);                     \
  template void linear_adjoint<N>(const LinearAdjointArgs<N>&);      \
  template void contraction<N>(const ContractionArgs<N>&);           \
  template void contraction_adjoint<N>(const ContractionAdjointArgs<N>&); \
  template void readout<N>(const ReadoutArgs<N>&);                   \
  template void readout_adjoint<N>(const ReadoutAdjointArgs<N>&);    \
  template void embed_species<N>(int, const int*, int, const scalar_t<N>*, scalar_t<N>*);
MACEKIT_INSTANTIATE(double)
MACEKIT_INSTANTIATE(float)
MACEKIT_INSTANTIATE(Dual<double>)
MACEKIT_INSTANTIATE(Dual<float>)
template void geometry_adjoint<double>(const GeometryAdjointArgs<double>&);
template void geometry_adjoint<float>(const GeometryAdjointArgs<float>&);
template void embed_species_adjoint<Dual<double>>(int, const int*, int, const double*, double*);
template void embed_species_adjoint<Dual<float>>(int, const int*, int, const float*, float*);

}  // namespace macekit
