// SPDX-License-Identifier: MIT
#include "potentials/model.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "kernels/error.hpp"
#include "potentials/architecture.hpp"

namespace macekit {
namespace {

class Recorder {
 public:
  Recorder(const Hyperparameters& hp, const Tensors& tensors, int line) : hp_(hp), tensors_(tensors), line_(line) {}

  Program record() {
    const int C = hp_.num_channels, T = hp_.num_interactions;
    p_.num_species = hp_.num_elements(), p_.num_channels = C;
    p_.Y = slot("Y", Rows::edge, 1, square(hp_.max_ell + 1), true);
    p_.basis = slot("basis", Rows::edge, 1, pad(hp_.num_bessel), true);
    Slot h = slot("h0", Rows::all, 1, pad(C), false);
    p_.steps.push_back(EmbedSpecies{h, species_embedding()});
    for (int t = 0; t < T; ++t) {
      const bool last = t == T - 1;
      const int l_in = input_lmax(hp_, t), l_out = output_lmax(hp_, t);
      const std::string interaction = "interactions." + std::to_string(t) + ".", n = std::to_string(t + 1);
      const bool residual = is_residual(hp_, t);

      const Slot u = slot("u" + n, Rows::all, square(l_in + 1), pad(C), t > 0);
      mix(h, u, interaction + "linear_up.weight", per_l(l_in), 1 / std::sqrt(double(C)));
      if (t > 0) p_.steps.push_back(ExchangeRows{u});
      const Slot A = convolve(u, l_in, interaction, n);
      Slot message = message_mix(A, l_in, interaction, n);
      if (!residual) {
        const Slot by_element = slot("m" + n + "_z", Rows::node, square(hp_.max_ell + 1), pad(C), true);
        species_mix(message, by_element, hp_.max_ell, interaction + "skip_tp.weight");
        message = by_element;
      }
      const Slot B = contract(message, l_out, t);
      const Slot h_next = slot("h" + n, Rows::node, square(l_out + 1), pad(C), true);
      mix(B, h_next, "products." + std::to_string(t) + ".linear.weight", per_l(l_out), 1 / std::sqrt(double(C)));
      if (residual) species_mix(h, h_next, std::min(l_in, l_out), interaction + "skip_tp.weight");
      h = h_next;
      p_.layer_outputs.push_back({h, l_out});
      read_out(h, t, last && T > 1);
    }
    return std::move(p_);
  }

 private:
  static int square(int n) { return n * n; }
  int pad(int n) const { return (n + line_ - 1) / line_ * line_; }
  Slot slot(const std::string& name, Rows rows, int components, int channels, bool depends_on_positions) {
    p_.slots.push_back({name, rows, components, channels, depends_on_positions});
    return static_cast<Slot>(p_.slots.size()) - 1;
  }
  WeightId weight(Weights w) {
    p_.weights.push_back(std::move(w));
    return static_cast<WeightId>(p_.weights.size()) - 1;
  }
  // One matrix [rows][columns], cut from `tensor` with consecutive rows, padded.
  WeightId matrix(const std::string& tensor, int rows, int columns, double scale) {
    Weights w;
    w.size = static_cast<std::size_t>(pad(rows)) * pad(columns);
    w.blocks.push_back({tensor, 0, rows, columns, columns, 0, pad(columns), scale});
    w.matrices.push_back({0, pad(rows), pad(columns)});
    return weight(std::move(w));
  }

  WeightId species_embedding() {
    const int C = hp_.num_channels, Z = hp_.num_elements();
    Weights w;
    w.size = static_cast<std::size_t>(Z) * pad(C);
    w.blocks.push_back({"node_embedding.linear.weight", 0, Z, C, C, 0, pad(C), 1 / std::sqrt(double(Z))});
    return weight(std::move(w));
  }

  // Blocks l -> l for features with every l once.
  std::vector<LinearBlock> per_l(int l_max) const {
    std::vector<LinearBlock> blocks;
    for (int l = 0; l <= l_max; ++l) blocks.push_back({l, l * l, l * l, static_cast<std::size_t>(l) * pad(hp_.num_channels) * pad(hp_.num_channels)});
    return blocks;
  }

  // Weight blocks [C][C] lie in the file in the order of `blocks`; scale[l] may differ.
  void mix(Slot x, Slot y, const std::string& tensor, const std::vector<LinearBlock>& blocks, const std::vector<double>& scale) {
    const int C = hp_.num_channels, P = pad(C);
    Weights w;
    w.size = blocks.size() * P * P;
    for (std::size_t k = 0; k < blocks.size(); ++k) {
      w.blocks.push_back({tensor, static_cast<std::int64_t>(k) * C * C, C, C, C, blocks[k].weight, P, scale[blocks[k].l]});
      w.matrices.push_back({blocks[k].weight, P, P});
    }
    p_.steps.push_back(Mix{x, y, blocks, weight(std::move(w)), 0});
  }
  void mix(Slot x, Slot y, const std::string& tensor, const std::vector<LinearBlock>& blocks, double scale) {
    mix(x, y, tensor, blocks, std::vector<double>(hp_.max_ell + 1, scale));
  }

  // The fully connected tensor product with the one-hot: a matrix per l and element (mace.md 2.4).
  void species_mix(Slot x, Slot y, int l_max, const std::string& tensor) {
    const int C = hp_.num_channels, P = pad(C), Z = hp_.num_elements();
    const std::vector<LinearBlock> blocks = per_l(l_max);
    const std::size_t stride = blocks.size() * P * P;
    Weights w;
    w.size = stride * Z;
    for (int l = 0; l <= l_max; ++l)
      for (int z = 0; z < Z; ++z) {
        const std::size_t target = z * stride + blocks[l].weight;
        w.blocks.push_back({tensor, (static_cast<std::int64_t>(l) * C * Z + z) * C, C, C, static_cast<std::int64_t>(Z) * C, target, P, 1 / std::sqrt(double(C) * Z)});
        w.matrices.push_back({target, P, P});
      }
    p_.steps.push_back(Mix{x, y, blocks, weight(std::move(w)), stride});
  }

  Slot convolve(Slot u, int l_in, const std::string& interaction, const std::string& n) {
    const int C = hp_.num_channels;
    RadialMLP radial;
    radial.basis = p_.basis;
    radial.widths = {pad(hp_.num_bessel)};
    int fan_in = hp_.num_bessel;
    double gain = 1;  // silu's normalisation is folded into the layer that follows it
    for (std::size_t i = 0; i < hp_.radial_MLP.size(); ++i) {
      const int width = hp_.radial_MLP[i];
      radial.weights.push_back(matrix(interaction + "conv_tp_weights.layer" + std::to_string(i) + ".weight", fan_in, width, gain / std::sqrt(double(fan_in))));
      radial.widths.push_back(pad(width));
      fan_in = width;
      gain = hp_.silu_factor;
    }
    radial.hidden = slot("radial" + n, Rows::edge, 1, radial.widths.back(), true);

    Convolve step{u, p_.Y, radial.hidden, -1, convolution_tables(l_in, hp_.max_ell), -1};
    const int paths = static_cast<int>(step.tables.paths.size()), columns = paths * pad(C);
    Weights w;
    w.size = static_cast<std::size_t>(pad(fan_in)) * columns;
    for (int q = 0; q < paths; ++q)
      w.blocks.push_back({interaction + "conv_tp_weights.layer" + std::to_string(hp_.radial_MLP.size()) + ".weight", q * C, fan_in, C, paths * C,
                          static_cast<std::size_t>(q) * pad(C), columns, gain / std::sqrt(double(fan_in))});
    w.matrices.push_back({0, pad(fan_in), columns});
    step.weight = weight(std::move(w));
    step.A = slot("A" + n, Rows::node, step.tables.num_out, pad(C), true);
    p_.steps.push_back(std::move(radial));
    p_.steps.push_back(step);
    return step.A;
  }

  Slot message_mix(Slot A, int l_in, const std::string& interaction, const std::string& n) {
    const int C = hp_.num_channels;
    const ConvolutionPaths t = convolution_tables(l_in, hp_.max_ell);
    std::vector<LinearBlock> blocks;
    std::vector<double> scale(hp_.max_ell + 1, 0.0);
    for (const auto& path : t.paths) {
      blocks.push_back({path.l3, path.out_offset, path.l3 * path.l3, blocks.size() * pad(C) * pad(C)});
      scale[path.l3] += C;
    }
    for (double& s : scale) s = 1 / (std::sqrt(s) * hp_.avg_num_neighbors);
    const Slot m = slot("m" + n, Rows::node, square(hp_.max_ell + 1), pad(C), true);
    mix(A, m, interaction + "linear.weight", blocks, scale);
    return m;
  }

  Slot contract(Slot A, int l_out, int t) {
    std::vector<std::vector<SparseU>> bases;
    Contract step{A, -1, {}, {}, {}};
    for (int l = 0; l <= l_out; ++l) {
      bases.emplace_back(), step.tensors.emplace_back(), step.num_paths.emplace_back();
      for (int order = 1; order <= hp_.correlation; ++order) {
        const std::string name = contraction_weight(hp_, t, l, order);
        const int num_paths = static_cast<int>(tensors_.at(name).shape.at(1));
        step.tensors.back().push_back(name);
        step.num_paths.back().push_back(num_paths);
        bases.back().push_back(read_basis(tensors_, contraction_basis(t, l, order), l, order, num_paths, square(hp_.max_ell + 1)));
      }
    }
    step.tables = contraction_tables(bases, square(hp_.max_ell + 1));
    step.B = slot("B" + std::to_string(t + 1), Rows::node, square(l_out + 1), pad(hp_.num_channels), true);
    p_.steps.push_back(step);
    return step.B;
  }

  void read_out(Slot h, int t, bool non_linear) {
    const int C = hp_.num_channels, H = hp_.num_heads(), M = hp_.MLP_width;
    const std::string prefix = "readouts." + std::to_string(t) + ".";
    if (!non_linear) {
      p_.steps.push_back(ReadOut{h, 0, pad(H), matrix(prefix + "linear.weight", C, H, 1 / std::sqrt(double(C))), -1});
      return;
    }
    Weights second;  // [padded H*M][H], rows padded only
    second.size = static_cast<std::size_t>(pad(H * M)) * H;
    second.blocks.push_back({prefix + "linear_2.weight", 0, H * M, H, H, 0, H, hp_.silu_factor / std::sqrt(double(H) * M)});
    const WeightId first = matrix(prefix + "linear_1.weight", C, H * M, 1 / std::sqrt(double(C)));
    p_.steps.push_back(ReadOut{h, M, pad(H * M), first, weight(std::move(second))});
  }

  const Hyperparameters& hp_;
  const Tensors& tensors_;
  int line_;
  Program p_;
};

}  // namespace

Program mace_program(const Hyperparameters& hp, const Tensors& tensors, int line) { return Recorder(hp, tensors, line).record(); }

SparseU read_basis(const Tensors& tensors, const std::string& name, int l_out, int order, int num_paths, int num_inputs) {
  const auto index = tensors.find(name + ".index"), value = tensors.find(name + ".value");
  require<InputError>(index != tensors.end() && value != tensors.end(), "potential: tensors ", name, ".index and .value are missing");
  const auto nnz = value->second.size();
  require<InputError>(index->second.shape == std::vector<std::int64_t>{nnz, order + 2}, "potential: tensor ", name, ".index must be [", nnz, ", ", order + 2, "]");
  SparseU u;
  u.l_out = l_out, u.order = order, u.num_paths = num_paths;
  u.value = value->second.real;
  for (std::int64_t k = 0; k < nnz; ++k) {
    const auto* row = index->second.integer.data() + k * (order + 2);
    u.index.emplace_back(row, row + order + 2);
    require<InputError>(row[0] >= 0 && row[0] <= 2 * l_out && row[order + 1] >= 0 && row[order + 1] < num_paths, "potential: tensor ", name,
                        ".index row ", k, " is out of range");
    for (int j = 1; j <= order; ++j) require<InputError>(row[j] >= 0 && row[j] < num_inputs, "potential: tensor ", name, ".index row ", k, " is out of range");
  }
  return u;
}

namespace {
const char* text(Rows rows) { return rows == Rows::node ? "N" : rows == Rows::all ? "N+ghosts" : "E"; }
}  // namespace

std::string describe(const Program& p) {
  std::ostringstream out;
  const auto show = [&](Slot s) {
    const SlotInfo& info = p.slots[s];
    std::ostringstream one;
    one << info.name << "[" << text(info.rows) << "," << info.components << "," << info.channels << "]";
    return one.str();
  };
  out << show(p.Y) << ", " << show(p.basis) << " = geometry(vec)\n";
  for (const Step& step : p.steps) {
    if (const auto* s = std::get_if<EmbedSpecies>(&step)) out << show(s->h) << " = embed(species)";
    if (const auto* s = std::get_if<RadialMLP>(&step)) {
      out << show(s->hidden) << " = radial_mlp(basis";
      for (int w : s->widths) out << " " << w;
      out << ")";
    }
    if (const auto* s = std::get_if<Convolve>(&step))
      out << show(s->A) << " = convolution(" << show(s->u) << ", Y, " << show(s->hidden) << ")  " << s->tables.paths.size() << " paths";
    if (const auto* s = std::get_if<Mix>(&step))
      out << show(s->y) << " += " << (s->species_stride ? "species_linear(" : "linear(") << show(s->x) << ")  " << s->blocks.size() << " blocks";
    if (const auto* s = std::get_if<Contract>(&step))
      out << show(s->B) << " = contraction(" << show(s->A) << ")  " << s->tables.num_coefficients << " monomials, " << s->tables.pairs.size() << " pairs";
    if (const auto* s = std::get_if<ExchangeRows>(&step)) out << show(s->u) << " = exchange";
    if (const auto* s = std::get_if<ReadOut>(&step)) out << "energy += " << (s->width ? "mlp_readout(" : "linear_readout(") << show(s->h) << ")";
    out << "\n";
  }
  return out.str();
}

}  // namespace macekit
