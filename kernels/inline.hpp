// SPDX-License-Identifier: MIT
#pragma once

// Marks of the functions that kernels are made of: portable sources (kernels/portable) compile them for the device as well.
#ifdef MACEKIT_PORTABLE
#include <Kokkos_Core.hpp>
#define MACEKIT_INLINE KOKKOS_FORCEINLINE_FUNCTION
#define MACEKIT_FUNCTION KOKKOS_INLINE_FUNCTION
#define MACEKIT_UNROLL _Pragma("unroll")
#else
#define MACEKIT_INLINE inline __attribute__((always_inline))
#define MACEKIT_FUNCTION inline
#define MACEKIT_UNROLL _Pragma("GCC unroll 8")
#endif
