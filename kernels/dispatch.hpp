// SPDX-License-Identifier: MIT
#pragma once

namespace macekit {

enum class Isa { generic, avx2, avx512 };
/// The instruction set in use: the widest that the processor has, or the one named by the environment variable MACEKIT_ISA.
/// @throws InputError  for an unknown name or one that this processor lacks
Isa instruction_set();
const char* name(Isa);

/// Does `rounds` of independent multiply-adds in registers on all threads and returns their number: what the processor can do
/// at most. T: double or float.
template <class T>
double multiply_adds(long rounds);

}  // namespace macekit
