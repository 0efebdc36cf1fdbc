// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <vector>

#include "training/loss.hpp"

namespace macekit::training {

/// Errors over all labels of positive weight; 0 where there is none.
struct Errors {
  double loss = 0;  ///< the loss as if the whole set were one batch
  double energy_rmse = 0, energy_mae = 0;  ///< eV/atom
  double forces_rmse = 0, forces_mae = 0;  ///< eV/Angstrom, per component
  double forces_relative = 0;              ///< 100 forces_rmse / rms(reference), percent
  double stress_rmse = 0, stress_mae = 0;  ///< eV/Angstrom^3, per component
  bool complete = true;                    ///< false if `stop` ended it early
};

/// Predicted labels of every frame of a dataset, concatenated.
struct Predictions {
  std::vector<double> energy;  ///< [frames] eV
  std::vector<double> forces;  ///< [atoms of all frames][3] eV/Angstrom
  std::vector<double> stress;  ///< [frames][9] eV/Angstrom^3; NaN where the frame has no stress label
};

/// Evaluates `data` in order, `batch_size` frames at a time. `stop` is asked between batches.
Errors validate(Model& model, const torch::Tensor& flat, const Dataset& data, const Loss& loss, int batch_size, const std::function<bool()>& stop);
Predictions predict_all(Model& model, const torch::Tensor& flat, const Dataset& data, int batch_size);

}  // namespace macekit::training
