// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "kernels/kokkos.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  macekit::start_kokkos();
  const int failed = RUN_ALL_TESTS();
  macekit::stop_kokkos();
  return failed;
}
