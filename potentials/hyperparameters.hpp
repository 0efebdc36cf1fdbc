// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

namespace macekit {

/// Everything about a MACE model that is not a weight. Names are those of mace-torch's constructor.
struct Hyperparameters {
  std::string model = "ScaleShiftMACE";  ///< or "MACE": no scale and shift
  std::vector<int> atomic_numbers;       ///< ascending; order of every per-element tensor
  std::vector<std::string> heads = {"Default"};
  double r_max = 5.0;                    ///< cut-off, Angstrom
  int num_bessel = 8;
  int num_polynomial_cutoff = 5;         ///< p of the envelope
  int max_ell = 3;                       ///< largest l of the edge harmonics and of the message
  int num_interactions = 2;              ///< layers
  int num_channels = 128;
  int max_L = 1;                         ///< largest l of the hidden features
  std::vector<int> radial_MLP = {64, 64, 64};
  int MLP_width = 16;                    ///< hidden width of the last read-out
  int correlation = 3;
  std::string interaction_first = "RealAgnosticResidualInteractionBlock";
  std::string interaction = "RealAgnosticResidualInteractionBlock";
  std::string radial_type = "bessel";
  std::string gate = "silu";
  bool use_reduced_cg = false;
  double avg_num_neighbors = 1.0;
  double silu_factor = 1.6791767923989418;  ///< e3nn's normalisation constant of silu, as stored in the model
  int num_elements() const { return static_cast<int>(atomic_numbers.size()); }
  int num_heads() const { return static_cast<int>(heads.size()); }
};

/// One sentence per broken rule, the first one thrown.  @throws InputError
void validate(const Hyperparameters&);
std::string to_json(const Hyperparameters&);
/// Unknown keys are errors that name the nearest known one; missing keys are errors too.  @throws InputError
Hyperparameters hyperparameters_from_json(const std::string& json);

}  // namespace macekit
