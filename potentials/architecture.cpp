// SPDX-License-Identifier: MIT
#include "potentials/architecture.hpp"

#include <algorithm>

#include "kernels/convolution.hpp"
#include "kernels/error.hpp"

namespace macekit {

int input_lmax(const Hyperparameters& hp, int layer) { return layer == 0 ? 0 : hp.max_L; }
int output_lmax(const Hyperparameters& hp, int layer) { return layer == hp.num_interactions - 1 ? 0 : hp.max_L; }
bool is_residual(const Hyperparameters& hp, int layer) {
  return (layer == 0 ? hp.interaction_first : hp.interaction) == "RealAgnosticResidualInteractionBlock";
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

Shapes trainable_shapes(const Hyperparameters& hp, const Tensors& tensors) {
  const std::int64_t C = hp.num_channels, Z = hp.num_elements(), H = hp.num_heads(), M = hp.MLP_width;
  const int T = hp.num_interactions;
  Shapes shapes{{"node_embedding.linear.weight", {Z * C}}};
  for (int t = 0; t < T; ++t) {
    const std::string prefix = "interactions." + std::to_string(t) + ".";
    const int l_in = input_lmax(hp, t);
    const auto num_paths = static_cast<std::int64_t>(convolution_tables(l_in, hp.max_ell).paths.size());
    shapes.push_back({prefix + "linear_up.weight", {(l_in + 1) * C * C}});
    std::int64_t fan_in = hp.num_bessel;
    for (std::size_t i = 0; i <= hp.radial_MLP.size(); ++i) {
      const std::int64_t fan_out = i < hp.radial_MLP.size() ? hp.radial_MLP[i] : num_paths * C;
      shapes.push_back({prefix + "conv_tp_weights.layer" + std::to_string(i) + ".weight", {fan_in, fan_out}});
      fan_in = fan_out;
    }
    shapes.push_back({prefix + "linear.weight", {num_paths * C * C}});
    const int skips = is_residual(hp, t) ? std::min(l_in, output_lmax(hp, t)) + 1 : hp.max_ell + 1;
    shapes.push_back({prefix + "skip_tp.weight", {skips * C * Z * C}});
  }
  for (int t = 0; t < T; ++t) {
    const int l_out = output_lmax(hp, t);
    for (int l = 0; l <= l_out; ++l)
      for (int order = hp.correlation; order >= 1; --order) {
        const std::string name = contraction_weight(hp, t, l, order);
        const auto found = tensors.find(name);
        require<InputError>(found != tensors.end(), "potential: tensor ", name, " is missing.");
        require<InputError>(found->second.shape.size() == 3, "potential: tensor ", name, " must have three axes [elements, paths, channels].");
        shapes.push_back({name, {Z, found->second.shape[1], C}});
      }
    shapes.push_back({"products." + std::to_string(t) + ".linear.weight", {(l_out + 1) * C * C}});
  }
  for (int t = 0; t < T; ++t) {
    const std::string prefix = "readouts." + std::to_string(t) + ".";
    if (t < T - 1 || T == 1) {
      shapes.push_back({prefix + "linear.weight", {C * H}});
    } else {
      shapes.push_back({prefix + "linear_1.weight", {C * H * M}});
      shapes.push_back({prefix + "linear_2.weight", {H * M * H}});
    }
  }
  return shapes;
}

Shapes constant_shapes(const Hyperparameters& hp) {
  const std::int64_t H = hp.num_heads();
  Shapes shapes{{"atomic_energies_fn.atomic_energies", {H, hp.num_elements()}}, {"radial_embedding.bessel_fn.bessel_weights", {hp.num_bessel}}};
  if (hp.model == "ScaleShiftMACE") shapes.push_back({"scale_shift.scale", {H}}), shapes.push_back({"scale_shift.shift", {H}});
  return shapes;
}

}  // namespace macekit
