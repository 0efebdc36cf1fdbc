// SPDX-License-Identifier: MIT
// The portable kernels by themselves: a program that needs no other part of macekit, so that a build for a GPU can be tried quickly.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/kernel_list.hpp"
#include "kernels/portable/memory.hpp"

namespace macekit {
MACEKIT_DECLARE_KERNELS(portable)
namespace {

template <class N>
class PortableKernels : public testing::Test {};
using Numbers = testing::Types<double, float, Dual<double>, Dual<float>>;
TYPED_TEST_SUITE(PortableKernels, Numbers);

// Copies, and one kernel: h[row][c] = weight[species[row]][c].
TYPED_TEST(PortableKernels, RunOnTheirMemory) {
  using T = scalar_t<TypeParam>;
  const Memory& memory = portable::device_memory();
  const int rows = 5, channels = 64 / sizeof(T);
  const std::vector<int> species = {1, 0, 2, 2, 1};
  std::vector<T> weight(3 * channels), h(rows * planes<TypeParam> * channels, T(-1));
  std::iota(weight.begin(), weight.end(), T(1));
  int* on_species = static_cast<int*>(memory.allocate(species.size() * sizeof(int)));
  T* on_weight = static_cast<T*>(memory.allocate(weight.size() * sizeof(T)));
  T* on_h = static_cast<T*>(memory.allocate(h.size() * sizeof(T)));
  memory.copy_in(on_species, species.data(), species.size() * sizeof(int));
  memory.copy_in(on_weight, weight.data(), weight.size() * sizeof(T));
  memory.zero(on_h, h.size() * sizeof(T));
  portable::list<TypeParam>().embed_species({rows, channels, on_species, on_weight, on_h});
  memory.copy_out(h.data(), on_h, h.size() * sizeof(T));
  for (int row = 0; row < rows; ++row)
    for (int c = 0; c < channels; ++c) {
      EXPECT_EQ(h[row * planes<TypeParam> * channels + c], weight[species[row] * channels + c]);
      if (is_dual<TypeParam>) EXPECT_EQ(h[(row * planes<TypeParam> + 1) * channels + c], T(0));
    }
  for (void* p : {static_cast<void*>(on_species), static_cast<void*>(on_weight), static_cast<void*>(on_h)}) memory.release(p);
}

}  // namespace
}  // namespace macekit
