// SPDX-License-Identifier: MIT
#if defined(MACEKIT_PORTABLE)
#elif defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
