// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <vector>

#include "training/loss.hpp"
#include "training/ranks.hpp"

namespace macekit::training {

/// Errors over all labels of positive weight; 0 where there is none.
struct Errors {
  double loss = 0;                           ///< mean over the heads that have frames of the loss of all their frames as one batch
  double energy_rmse = 0, energy_mae = 0;    ///< eV/atom
  double forces_rmse = 0, forces_mae = 0;    ///< eV/Angstrom, per component
  double forces_relative = 0;                ///< 100 forces_rmse / rms(reference), percent
  double stress_rmse = 0, stress_mae = 0;    ///< eV/Angstrom^3, per component
  double virials_rmse = 0, virials_mae = 0;  ///< eV/atom, per component
  std::vector<double> head_losses;           ///< loss of each head's frames as one batch; NaN for a head without frames
  int signal = 0;                            ///< what `stop` said on some rank to end it early; the rest is then empty
};

/// Predicted labels of frames, concatenated.
struct Predictions {
  std::vector<double> energy;   ///< [frames] eV
  std::vector<double> forces;   ///< [atoms of all frames][3] eV/Angstrom
  std::vector<double> stress;   ///< [frames][9] eV/Angstrom^3; NaN where the frame has no stress label
  std::vector<double> virials;  ///< [frames][9] eV; NaN where the frame has no virials label
};

/// Evaluates `data` head by head, `batch_size` frames at a time; ranks share the batches. `stop` is asked between batches and says 0 to
/// go on. The same bits on any number of ranks.
/// @param num_workers  threads that make the batches ahead
Errors validate(Model& model, const torch::Tensor& flat, const Dataset& data, const Loss& loss, int batch_size,
                const std::function<int()>& stop, const Ranks& ranks, int num_workers);
/// Of the frames first .. last - 1.
Predictions predict(Model& model, const torch::Tensor& flat, const Dataset& data, int batch_size, int first, int last);

}  // namespace macekit::training
