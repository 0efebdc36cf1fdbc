// SPDX-License-Identifier: MIT
// The kernels of one namespace (an instruction set, or `portable`) as a Kernels<N>.
#pragma once
#include "kernels/backend.hpp"

/// The kernels that exist for all numbers, in the order of Kernels<N>: F(function, Args)
#define MACEKIT_FOR_EACH_KERNEL(F) \
  F(geometry, GeometryArgs) F(radial, RadialArgs) F(radial_adjoint, RadialAdjointArgs) F(convolution, ConvolutionArgs) \
  F(convolution_adjoint, ConvolutionAdjointArgs) F(linear, LinearArgs) F(linear_adjoint, LinearAdjointArgs) F(contraction, ContractionArgs) \
  F(contraction_adjoint, ContractionAdjointArgs) F(readout, ReadoutArgs) F(readout_adjoint, ReadoutAdjointArgs) F(embed_species, EmbedArgs) \
  F(density, DensityArgs) F(density_adjoint, DensityAdjointArgs) F(normalize, NormalizeArgs) F(normalize_adjoint, NormalizeAdjointArgs) \
  F(gate, GateArgs) F(gate_adjoint, GateAdjointArgs) F(activate_rows, ActivateArgs) F(activate_rows_adjoint, ActivateAdjointArgs) \
  F(tabulated_convolution, TabulatedConvolutionArgs) F(tabulated_convolution_adjoint, TabulatedConvolutionAdjointArgs)

#define MACEKIT_DECLARE_KERNEL(function, Args) \
  template <class N>                           \
  void function(const Args<N>&);
#define MACEKIT_LIST_KERNEL(function, Args) function<N>,
#define MACEKIT_DECLARE_KERNELS(isa)                                         \
  namespace isa {                                                            \
  MACEKIT_FOR_EACH_KERNEL(MACEKIT_DECLARE_KERNEL)                            \
  template <class T>                                                         \
  void geometry_adjoint(const GeometryAdjointArgs<T>&);                      \
  template <class T>                                                         \
  void embed_species_adjoint(const EmbedAdjointArgs<T>&);                    \
  template <class T>                                                         \
  void tabulate(const TabulateArgs<T>&);                                     \
  template <class T>                                                         \
  void tabulate_adjoint(const TabulateAdjointArgs<T>&);                      \
  void repulsion(const RepulsionArgs&);                                      \
  template <class T>                                                         \
  double multiply_adds(long);                                                \
  template <class N>                                                         \
  const Kernels<N>& list() {                                                 \
    using T = scalar_t<N>;                                                   \
    static const Kernels<N> all = {MACEKIT_FOR_EACH_KERNEL(MACEKIT_LIST_KERNEL) geometry_adjoint<T>, embed_species_adjoint<T>, \
                                   tabulate<T>, tabulate_adjoint<T>, repulsion}; \
    return all;                                                              \
  }                                                                          \
  }

#define MACEKIT_FOR_EACH_NUMBER(F) F(double) F(float) F(Dual<double>) F(Dual<float>)
/// At the end of a kernel source: the template for all numbers.
#define MACEKIT_INSTANTIATE(function, Args)                  \
  template void function<double>(const Args<double>&);       \
  template void function<float>(const Args<float>&);         \
  template void function<Dual<double>>(const Args<Dual<double>>&); \
  template void function<Dual<float>>(const Args<Dual<float>>&);
#define MACEKIT_INSTANTIATE_SCALARS(function, Args)    \
  template void function<double>(const Args<double>&); \
  template void function<float>(const Args<float>&);
