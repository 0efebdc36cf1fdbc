// SPDX-License-Identifier: MIT
// Independent multiply-adds in registers: what a processor can do at most. For benchmarks.
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/parts.hpp"

#include "kernels/isa.hpp"

namespace macekit::MACEKIT_ISA {

template <class T>
double multiply_adds(long rounds) {
  constexpr int chains = 12;  // more than latency times units, and all in registers
  const int parts = num_parts();
  std::vector<T> results(parts);
  for_parts("macekit::multiply_adds", parts, [&](int part) {
    Vector<T> sum[chains];
    for (int k = 0; k < chains; ++k) sum[k] = broadcast(T(1) + T(part + k));
    volatile T factor = T(0.999), term = T(0.001);  // or the compiler finds the closed form
    for (long round = 0; round < rounds; ++round) {
      const Vector<T> a = broadcast(T(factor)), b = broadcast(T(term));
#pragma GCC unroll 12
      for (int k = 0; k < chains; ++k) sum[k] = sum[k] * a + b;
    }
    Vector<T> total{};
    for (int k = 0; k < chains; ++k) total += sum[k];
    results[part] = sum_lanes<T>(total);
  });
  double check = 0;
  for (T r : results) check += double(r);
  return check == 0 ? 0.0 : double(rounds) * chains * lanes<T> * parts;
}

template double multiply_adds<double>(long);
template double multiply_adds<float>(long);

}  // namespace macekit::MACEKIT_ISA

#include "kernels/isa_end.hpp"
