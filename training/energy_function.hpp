// SPDX-License-Identifier: MIT
#pragma once
#include <torch/types.h>

#include "training/dataset.hpp"
#include "training/model.hpp"

namespace macekit::training {

/// What a loss is made of. Undefined tensors were not asked for.
struct Prediction {
  torch::Tensor energy;   ///< [G] eV
  torch::Tensor forces;   ///< [N,3] eV/Angstrom
  torch::Tensor stress;   ///< [G,3,3] eV/Angstrom^3, (1/V) dE/dstrain; graphs of volume 1 have no meaning here
  torch::Tensor virials;  ///< [G,3,3] eV, -dE/dstrain
};

/// Energies, forces and stress as functions of the weights `flat` that LibTorch can differentiate once.
///
/// The model is one autograd function: forward is pass 1 (E and g = dE/dvec), backward the dual pass, which turns dL/dE and
/// dL/dg into dL/dflat. Forces and stress are sums of g, made here with LibTorch's own operations, so any loss may be written:
///   F[i] = sum_{e: sender = i} g[e] - sum_{e: receiver = i} g[e],   stress[s] = 1/V sum_{e in s} sym(g[e] (x) vec[e]).
/// `batch` and `model` must outlive the backward call, and no other evaluation may come between the two.
Prediction predict(Model& model, const torch::Tensor& flat, const Batch& batch, bool forces, bool stress);

}  // namespace macekit::training
