// SPDX-License-Identifier: MIT
// Where kernels run: every kernel exists for each backend, over the same bodies (kernels/*_body.hpp).
#pragma once
#include <cstddef>

#include "kernels/contraction.hpp"
#include "kernels/convolution.hpp"
#include "kernels/density.hpp"
#include "kernels/geometry.hpp"
#include "kernels/linear.hpp"
#include "kernels/radial.hpp"
#include "kernels/readout.hpp"
#include "kernels/tabulated.hpp"

namespace macekit {

enum class Backend {
  simd,      ///< vectors of channels on the host's threads (kernels/*.cpp)
  portable,  ///< a thread per channel on Kokkos's default execution space: a GPU where Kokkos was built for one
};
const char* name(Backend);
/// Whether the portable backend runs on a GPU here.
bool portable_is_gpu();

/// Memory that the kernels of a backend work on; host memory for `simd`.
struct Memory {
  void* (*allocate)(std::size_t bytes);  ///< at least 64-byte aligned, uninitialised; throws std::bad_alloc
  void (*release)(void*);
  void (*zero)(void*, std::size_t bytes);
  void (*copy_in)(void* to, const void* from_host, std::size_t bytes);
  void (*copy_out)(void* to_host, const void* from, std::size_t bytes);
};
const Memory& memory(Backend);

/// All kernels for numbers N; what each does is said with its arguments.
template <class N>
struct Kernels {
  using T = scalar_t<N>;
  void (*geometry)(const GeometryArgs<N>&);
  void (*radial)(const RadialArgs<N>&);
  void (*radial_adjoint)(const RadialAdjointArgs<N>&);
  void (*convolution)(const ConvolutionArgs<N>&);
  void (*convolution_adjoint)(const ConvolutionAdjointArgs<N>&);
  void (*linear)(const LinearArgs<N>&);
  void (*linear_adjoint)(const LinearAdjointArgs<N>&);
  void (*contraction)(const ContractionArgs<N>&);
  void (*contraction_adjoint)(const ContractionAdjointArgs<N>&);
  void (*readout)(const ReadoutArgs<N>&);
  void (*readout_adjoint)(const ReadoutAdjointArgs<N>&);
  void (*embed_species)(const EmbedArgs<N>&);
  void (*density)(const DensityArgs<N>&);
  void (*density_adjoint)(const DensityAdjointArgs<N>&);
  void (*normalize)(const NormalizeArgs<N>&);
  void (*normalize_adjoint)(const NormalizeAdjointArgs<N>&);
  void (*gate)(const GateArgs<N>&);
  void (*gate_adjoint)(const GateAdjointArgs<N>&);
  void (*activate_rows)(const ActivateArgs<N>&);
  void (*activate_rows_adjoint)(const ActivateAdjointArgs<N>&);
  void (*tabulated_convolution)(const TabulatedConvolutionArgs<N>&);
  void (*tabulated_convolution_adjoint)(const TabulatedConvolutionAdjointArgs<N>&);
  void (*geometry_adjoint)(const GeometryAdjointArgs<T>&);          ///< plain numbers only
  void (*embed_species_adjoint)(const EmbedAdjointArgs<T>&);        ///< dual numbers only
  void (*tabulate)(const TabulateArgs<T>&);
  void (*tabulate_adjoint)(const TabulateAdjointArgs<T>&);
  void (*repulsion)(const RepulsionArgs&);                          ///< double
};
/// N: double, float and their duals. For `simd` the widest instruction set that the processor has (dispatch.hpp).
template <class N>
const Kernels<N>& kernels(Backend);

}  // namespace macekit
