// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

namespace macekit {

/// A further input that enters the species embedding, such as the total charge (mace.md 2.5, embedding_specs).
struct InputEmbedding {
  std::string name;                 ///< key of the value: total_charge, total_spin, ..
  std::string type = "categorical"; ///< a row of a table, int(value + offset);  or "continuous": a two-layer network
  std::string per = "graph";        ///< one value for each structure; or "node"
  int emb_dim = 0;
  int num_classes = 0;              ///< categorical
  int offset = 0;                   ///< categorical
  int in_dim = 0;                   ///< continuous: numbers in a value
  bool use_bias = true;             ///< continuous
  bool operator==(const InputEmbedding&) const = default;
};

/// Dispersion that is added to the energy of the network (kernels/dispersion.hpp).
struct DispersionSettings {
  std::string method = "None";      ///< or "D3(BJ)"
  std::string functional;           ///< whose parameters these are
  double s6 = 1, s8 = 0, a1 = 0, a2 = 0;  ///< a2 in Angstrom
  double cutoff = 0, smoothing = 0;       ///< Angstrom
  bool operator==(const DispersionSettings&) const = default;
};

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
  std::string distance_transform = "None";  ///< or "Agnesi", "Soft"
  std::string gate = "silu";                ///< of the last read-out: silu, tanh, abs or None
  std::string readout = "NonLinearReadoutBlock";  ///< the last one; or "NonLinearBiasReadoutBlock"
  bool use_reduced_cg = false;
  double avg_num_neighbors = 1.0;
  bool apply_cutoff = true;                 ///< the envelope multiplies the basis; false: it multiplies the radial weights
  bool pair_repulsion = false;              ///< ZBL
  bool use_so3 = false;                     ///< all harmonics count as even
  bool use_agnostic_product = false;        ///< contraction weights shared by all elements
  bool use_last_readout_only = false;
  bool keep_last_layer_irreps = false;      ///< the last layer keeps every l
  int edge_channels = 0;                    ///< channels of what edges carry (edge_irreps); 0: num_channels
  int edge_max_L = -1;                      ///< its largest l; -1: that of the layer's input
  bool use_edge_irreps_first = false;       ///< edge_channels holds for the first layer too
  std::vector<InputEmbedding> embeddings;   ///< in mace-torch's order
  bool use_embedding_readout = false;
  double silu_factor = 1.6791767923989418;  ///< e3nn's normalisation constants, as stored in the model: of silu,
  double sigmoid_factor = 1.8467055342154763;  ///< of sigmoid (NonLinear blocks),
  double gate_factor = 1.6791767923989418;  ///< and of the read-out's gate
  DispersionSettings dispersion;            ///< not part of the network, which trainings see alone
  bool uncertainty = false;                 ///< the file holds the factor of the last-layer uncertainty (potentials/uncertainty.hpp)
  bool has_dispersion() const { return dispersion.method != "None"; }
  int num_elements() const { return static_cast<int>(atomic_numbers.size()); }
  int num_heads() const { return static_cast<int>(heads.size()); }
};

/// One sentence per broken rule, the first one thrown.  @throws InputError
void validate(const Hyperparameters&);
std::string to_json(const Hyperparameters&);
/// Unknown keys are errors that name the nearest known one; missing keys are errors too.  @throws InputError
Hyperparameters hyperparameters_from_json(const std::string& json);

}  // namespace macekit
