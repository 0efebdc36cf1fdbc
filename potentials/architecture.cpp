// SPDX-License-Identifier: MIT
#include "potentials/architecture.hpp"

#include <algorithm>

#include "kernels/convolution.hpp"
#include "kernels/dispersion.hpp"
#include "kernels/error.hpp"

namespace macekit {

Block block_of(const Hyperparameters& hp, int layer) {
  const std::string& name = layer == 0 ? hp.interaction_first : hp.interaction;
  if (name == "RealAgnosticInteractionBlock") return Block::agnostic;
  if (name == "RealAgnosticResidualInteractionBlock") return Block::residual;
  if (name == "RealAgnosticDensityInteractionBlock") return Block::density;
  if (name == "RealAgnosticDensityResidualInteractionBlock") return Block::density_residual;
  if (name == "RealAgnosticAttResidualInteractionBlock") return Block::attention;
  require(name == "RealAgnosticResidualNonLinearInteractionBlock", "architecture: unknown block ", name);
  return Block::non_linear;
}
Skip skip_of(Block block) {
  if (block == Block::agnostic || block == Block::density) return Skip::species_of_message;
  return block == Block::residual || block == Block::density_residual ? Skip::species_of_input : Skip::linear_of_input;
}

int input_lmax(const Hyperparameters& hp, int layer) { return layer == 0 ? 0 : hp.max_L; }
int output_lmax(const Hyperparameters& hp, int layer) {
  if (layer < hp.num_interactions - 1) return hp.max_L;
  return hp.keep_last_layer_irreps && hp.num_interactions > 1 ? hp.max_L : 0;
}
namespace {
bool own_edge_irreps(const Hyperparameters& hp, int layer) { return hp.edge_channels > 0 && (layer > 0 || hp.use_edge_irreps_first); }
}  // namespace
int edge_lmax(const Hyperparameters& hp, int layer) {
  if (layer == 0) return 0;
  return own_edge_irreps(hp, layer) && hp.edge_max_L >= 0 ? hp.edge_max_L : hp.max_L;
}
int edge_channels(const Hyperparameters& hp, int layer) { return own_edge_irreps(hp, layer) ? hp.edge_channels : hp.num_channels; }

std::vector<int> radial_widths(const Hyperparameters& hp, int layer) {
  return block_of(hp, layer) == Block::attention ? std::vector<int>{256, 256, 256} : hp.radial_MLP;  // fixed upstream
}
int radial_node_inputs(const Hyperparameters& hp, int layer) {
  const Block block = block_of(hp, layer);
  return block == Block::attention ? 64 : block == Block::non_linear ? hp.num_channels : 0;  // 64: fixed upstream
}
int contraction_species(const Hyperparameters& hp) { return hp.use_agnostic_product ? 1 : hp.num_elements(); }
int num_invariants(const Hyperparameters& hp) { return hp.num_interactions * hp.num_channels; }
int readout_of(const Hyperparameters& hp, int layer) {
  if (!hp.use_last_readout_only) return layer;
  return layer == hp.num_interactions - 1 ? 0 : -1;
}

namespace {
std::string contraction_prefix(int layer, int l_out) {
  return "products." + std::to_string(layer) + ".symmetric_contractions.contractions." + std::to_string(l_out) + ".";
}
}  // namespace

std::string contraction_weight(const Hyperparameters& hp, int layer, int l_out, int order) {
  return contraction_prefix(layer, l_out) + (order == hp.correlation ? "weights_max" : "weights." + std::to_string(hp.correlation - 1 - order));
}
std::string contraction_basis(int layer, int l_out, int order) { return contraction_prefix(layer, l_out) + "U_matrix_" + std::to_string(order); }

namespace {

using Extents = std::vector<std::int64_t>;

// e3nn's FullyConnectedNet: layer0, layer1, ..
void add_network(Shapes& shapes, const std::string& prefix, const Extents& widths) {
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) shapes.push_back({prefix + "layer" + std::to_string(i) + ".weight", {widths[i], widths[i + 1]}});
}
// mace-torch's RadialMLP: net.0 linear, net.1 LayerNorm, net.2 silu, net.3 linear, ..
void add_radial_MLP(Shapes& shapes, const std::string& prefix, const Extents& widths) {
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    const std::string linear = prefix + "net." + std::to_string(3 * i) + ".", norm = prefix + "net." + std::to_string(3 * i + 1) + ".";
    shapes.push_back({linear + "weight", {widths[i + 1], widths[i]}});
    shapes.push_back({linear + "bias", {widths[i + 1]}});
    if (i + 2 < widths.size()) shapes.push_back({norm + "weight", {widths[i + 1]}}), shapes.push_back({norm + "bias", {widths[i + 1]}});
  }
}

void add_embeddings(Shapes& shapes, const Hyperparameters& hp) {
  std::int64_t total = 0;
  for (const InputEmbedding& e : hp.embeddings) {
    const std::string prefix = "joint_embedding.embedders." + e.name + ".";
    total += e.emb_dim;
    if (e.type == "categorical") {
      shapes.push_back({prefix + "weight", {e.num_classes, e.emb_dim}});
      continue;
    }
    for (const auto& [layer, fan_in] : {std::pair{"0.", e.in_dim}, std::pair{"2.", e.emb_dim}}) {
      shapes.push_back({prefix + layer + "weight", {e.emb_dim, fan_in}});
      if (e.use_bias) shapes.push_back({prefix + layer + "bias", {e.emb_dim}});
    }
  }
  if (total) shapes.push_back({"joint_embedding.project.0.weight", {hp.num_channels, total}});
  if (hp.use_embedding_readout) shapes.push_back({"embedding_readout.linear.weight", {std::int64_t(hp.num_channels) * hp.num_heads()}});
}

void add_interaction(Shapes& shapes, const Hyperparameters& hp, int t) {
  const std::string prefix = "interactions." + std::to_string(t) + ".";
  const Block block = block_of(hp, t);
  const std::int64_t C = hp.num_channels, Ce = edge_channels(hp, t), Z = hp.num_elements();
  const int l_in = input_lmax(hp, t), l_edge = edge_lmax(hp, t), l_both = std::min(l_in, output_lmax(hp, t)), nodes = radial_node_inputs(hp, t);
  const ConvolutionPaths paths = convolution_tables(l_edge, hp.max_ell, hp.use_so3);
  const auto num_paths = static_cast<std::int64_t>(paths.paths.size());
  Extents widths{hp.num_bessel + 2 * nodes};
  for (int width : radial_widths(hp, t)) widths.push_back(width);
  widths.push_back(num_paths * Ce);

  if (block == Block::non_linear) {
    for (const char* name : {"alpha", "beta"}) shapes.push_back({prefix + name, {}});
    for (const char* name : {"source_embedding", "target_embedding"}) shapes.push_back({prefix + name + ".weight", {Z * C}});
  }
  shapes.push_back({prefix + "linear_up.weight", {(std::min(l_in, l_edge) + 1) * C * Ce}});
  if (block == Block::attention) shapes.push_back({prefix + "linear_down.weight", {C * nodes}});
  if (block == Block::non_linear) add_radial_MLP(shapes, prefix + "conv_tp_weights.", widths);
  else add_network(shapes, prefix + "conv_tp_weights.", widths);
  if (block != Block::non_linear) shapes.push_back({prefix + "linear.weight", {num_paths * Ce * C}});
  switch (skip_of(block)) {
    case Skip::species_of_message: shapes.push_back({prefix + "skip_tp.weight", {(hp.max_ell + 1) * C * Z * C}}); break;
    case Skip::species_of_input: shapes.push_back({prefix + "skip_tp.weight", {(l_both + 1) * C * Z * C}}); break;
    case Skip::linear_of_input:
      shapes.push_back({prefix + (block == Block::attention ? "skip_linear.weight" : "skip_tp.weight"), {(l_both + 1) * C * C}});
  }
  if (block == Block::non_linear) {
    const auto gated = [&](int l) { return l == 0 ? C * (1 + hp.max_ell) : C; };  // scalars and the gates of l > 0
    std::int64_t one = 0, residual = 0;
    for (const auto& path : paths.paths) one += Ce * gated(path.l3);
    for (int l = 0; l <= l_edge; ++l) residual += Ce * gated(l);
    shapes.push_back({prefix + "linear_res.weight", {residual}});
    shapes.push_back({prefix + "linear_1.weight", {one}});
    shapes.push_back({prefix + "linear_2.weight", {(hp.max_ell + 1) * C * C}});
    add_radial_MLP(shapes, prefix + "density_fn.", {widths[0], 64, 1});
  } else if (has_density(block)) {
    add_network(shapes, prefix + "density_fn.", {hp.num_bessel, 1});
  }
}

void add_product(Shapes& shapes, const Hyperparameters& hp, const Tensors& tensors, int t) {
  const std::int64_t C = hp.num_channels;
  const int l_out = output_lmax(hp, t);
  for (int l = 0; l <= l_out; ++l)
    for (int order = hp.correlation; order >= 1; --order) {
      const std::string name = contraction_weight(hp, t, l, order);
      const auto found = tensors.find(name);
      require<InputError>(found != tensors.end(), "potential: tensor ", name, " is missing.");
      require<InputError>(found->second.shape.size() == 3, "potential: tensor ", name, " must have three axes [elements, paths, channels].");
      shapes.push_back({name, {contraction_species(hp), found->second.shape[1], C}});
    }
  shapes.push_back({"products." + std::to_string(t) + ".linear.weight", {(l_out + 1) * C * C}});
}

void add_readout(Shapes& shapes, const Hyperparameters& hp, int t) {
  if (readout_of(hp, t) < 0) return;
  const std::int64_t C = hp.num_channels, H = hp.num_heads(), HM = H * hp.MLP_width;
  const std::string prefix = "readouts." + std::to_string(readout_of(hp, t)) + ".";
  if (t < hp.num_interactions - 1 || t == 0) {
    shapes.push_back({prefix + "linear.weight", {C * H}});
    return;
  }
  const bool bias = hp.readout == "NonLinearBiasReadoutBlock";
  shapes.push_back({prefix + "linear_1.weight", {C * HM}});
  if (bias) shapes.push_back({prefix + "linear_mid.weight", {HM * HM}}), shapes.push_back({prefix + "linear_mid.bias", {HM}});
  shapes.push_back({prefix + "linear_2.weight", {HM * H}});
  if (bias) shapes.push_back({prefix + "linear_2.bias", {H}});
}

}  // namespace

Shapes trainable_shapes(const Hyperparameters& hp, const Tensors& tensors) {
  const int T = hp.num_interactions;
  Shapes shapes{{"node_embedding.linear.weight", {std::int64_t(hp.num_elements()) * hp.num_channels}}};
  add_embeddings(shapes, hp);
  for (int t = 0; t < T; ++t) add_interaction(shapes, hp, t);
  for (int t = 0; t < T; ++t) add_product(shapes, hp, tensors, t);
  for (int t = 0; t < T; ++t) add_readout(shapes, hp, t);
  return shapes;
}

Shapes constant_shapes(const Hyperparameters& hp) {
  const std::int64_t H = hp.num_heads(), num_radii = 119;  // of all elements, from 0
  Shapes shapes{{"atomic_energies_fn.atomic_energies", {H, hp.num_elements()}}};
  if (hp.radial_type == "bessel") shapes.push_back({"radial_embedding.bessel_fn.bessel_weights", {hp.num_bessel}});
  if (hp.radial_type == "gaussian") shapes.push_back({"radial_embedding.bessel_fn.gaussian_weights", {hp.num_bessel}});
  const std::string transform = "radial_embedding.distance_transform.", zbl = "pair_repulsion_fn.";
  if (hp.distance_transform == "Agnesi")
    for (const char* name : {"a", "q", "p"}) shapes.push_back({transform + name, {}});
  if (hp.distance_transform == "Soft") shapes.push_back({transform + "alpha", {}});
  if (hp.distance_transform != "None") shapes.push_back({transform + "covalent_radii", {num_radii}});
  if (hp.pair_repulsion) {
    shapes.push_back({zbl + "c", {4}}), shapes.push_back({zbl + "covalent_radii", {num_radii}});
    for (const char* name : {"a_exp", "a_prefactor"}) shapes.push_back({zbl + name, {}});
  }
  if (hp.model == "ScaleShiftMACE") shapes.push_back({"scale_shift.scale", {H}}), shapes.push_back({"scale_shift.shift", {H}});
  if (hp.has_dispersion()) {
    const std::int64_t Z = hp.num_elements(), R = DispersionTables::references;
    shapes.push_back({"dispersion.reference_cn", {Z, R}}), shapes.push_back({"dispersion.reference_c6", {Z, Z, R, R}});
    for (const char* name : {"covalent_radius", "sqrt_c8_over_c6"}) shapes.push_back({std::string("dispersion.") + name, {Z}});
  }
  if (hp.uncertainty) shapes.push_back({"uncertainty.factor", {num_invariants(hp), num_invariants(hp)}});
  return shapes;
}

}  // namespace macekit
