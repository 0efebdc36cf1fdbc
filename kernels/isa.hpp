// SPDX-License-Identifier: MIT
// Kernel sources are compiled once per instruction set, each time in another namespace (MACEKIT_ISA: generic, avx2,
// avx512), and chosen at run time by dispatch.cpp. Include this header after every other one: what follows it, and only
// that, uses the wider instructions, so that no inline function of the standard library or Kokkos can leak them into
// code that runs on older machines. End the file with isa_end.hpp.
// Portable sources (kernels/portable) are compiled once, as MACEKIT_ISA=portable, with vectors of one lane.
#ifndef MACEKIT_ISA
#error "kernel sources are compiled through macekit_add_kernel in kernels/CMakeLists.txt"
#endif

#define MACEKIT_ISA_generic 0
#define MACEKIT_ISA_avx2 1
#define MACEKIT_ISA_avx512 2
#define MACEKIT_ISA_portable 3
#define MACEKIT_ISA_CONCAT(a, b) a##b
#define MACEKIT_ISA_NUMBER(isa) MACEKIT_ISA_CONCAT(MACEKIT_ISA_, isa)

#if MACEKIT_ISA_NUMBER(MACEKIT_ISA) == 3
// One lane, no wider instructions.
#elif MACEKIT_ISA_NUMBER(MACEKIT_ISA) == 2
#define MACEKIT_VECTOR_BYTES 64
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#elif MACEKIT_ISA_NUMBER(MACEKIT_ISA) == 1
#define MACEKIT_VECTOR_BYTES 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#else
#define MACEKIT_VECTOR_BYTES 16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((annotate("macekit"))), apply_to = function)
#else
#pragma GCC push_options
#endif
#endif

#include "kernels/vector.hpp"
