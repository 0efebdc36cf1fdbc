// SPDX-License-Identifier: MIT
// The kernels of one namespace (an instruction set, or `portable`) as a Kernels<N>.
#pragma once
#include "kernels/backend.hpp"

#define MACEKIT_DECLARE_KERNELS(isa)                                            \
  namespace isa {                                                               \
  template <class N> void geometry(const GeometryArgs<N>&);                     \
  template <class T> void geometry_adjoint(const GeometryAdjointArgs<T>&);      \
  template <class N> void radial(const RadialArgs<N>&);                         \
  template <class N> void radial_adjoint(const RadialAdjointArgs<N>&);          \
  template <class N> void convolution(const ConvolutionArgs<N>&);               \
  template <class N> void convolution_adjoint(const ConvolutionAdjointArgs<N>&); \
  template <class N> void linear(const LinearArgs<N>&);                         \
  template <class N> void linear_adjoint(const LinearAdjointArgs<N>&);          \
  template <class N> void contraction(const ContractionArgs<N>&);               \
  template <class N> void contraction_adjoint(const ContractionAdjointArgs<N>&); \
  template <class N> void readout(const ReadoutArgs<N>&);                       \
  template <class N> void readout_adjoint(const ReadoutAdjointArgs<N>&);        \
  template <class N> void embed_species(const EmbedArgs<N>&);                   \
  template <class T> void embed_species_adjoint(const EmbedAdjointArgs<T>&);    \
  template <class N>                                                            \
  const Kernels<N>& list() {                                                    \
    using T = scalar_t<N>;                                                      \
    static const Kernels<N> all = {geometry<N>,    radial<N>,      radial_adjoint<N>,      convolution<N>, convolution_adjoint<N>, \
                                   linear<N>,      linear_adjoint<N>, contraction<N>,      contraction_adjoint<N>, readout<N>,     \
                                   readout_adjoint<N>, embed_species<N>, geometry_adjoint<T>, embed_species_adjoint<T>};           \
    return all;                                                                 \
  }                                                                             \
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
