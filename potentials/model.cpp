// SPDX-License-Identifier: MIT
#include "potentials/model.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/error.hpp"
#include "potentials/architecture.hpp"

namespace macekit {
namespace {

class Recorder {
 public:
  Recorder(const Hyperparameters& hp, const Tensors& tensors, int line) : hp_(hp), tensors_(tensors), line_(line) {}

  Program record() {
    const int C = hp_.num_channels, T = hp_.num_interactions;
    p_.num_species = hp_.num_elements(), p_.num_channels = C, p_.inputs = hp_.embeddings;
    p_.Y = slot("Y", Rows::edge, 1, square(hp_.max_ell + 1), true);
    p_.basis = slot("basis", Rows::edge, 1, pad(hp_.num_bessel), true);
    if (!hp_.apply_cutoff) p_.envelope = slot("envelope", Rows::edge, 1, 1, true);
    Slot h = slot("h0", Rows::all, 1, pad(C), false);
    p_.steps.push_back(EmbedSpecies{h, species_table("node_embedding.linear.weight", C)});
    if (!hp_.embeddings.empty()) embed_inputs(h);
    if (hp_.use_embedding_readout) {
      ReadOut step{h, 0, pad(hp_.num_heads()), matrix("embedding_readout.linear.weight", C, hp_.num_heads(), 1 / std::sqrt(double(C))), -1};
      step.of_graph = true;
      p_.steps.push_back(step);
    }
    if (hp_.pair_repulsion) p_.steps.push_back(Repulsion{});
    for (int t = 0; t < T; ++t) {
      const int l_in = input_lmax(hp_, t), l_edge = edge_lmax(hp_, t), l_out = output_lmax(hp_, t), C_edge = edge_channels(hp_, t);
      const std::string interaction = "interactions." + std::to_string(t) + ".", n = std::to_string(t + 1);
      const Block block = block_of(hp_, t);

      const Slot u = slot("u" + n, Rows::all, square(l_edge + 1), pad(C_edge), t > 0);
      mix(h, u, interaction + "linear_up.weight", per_l(std::min(l_in, l_edge), C, C_edge), C, C_edge, 1 / std::sqrt(double(C)));
      if (t > 0) p_.steps.push_back(ExchangeRows{u});
      const Ends ends = block == Block::attention ? attention_inputs(h, interaction, n, t) : block == Block::non_linear ? species_inputs(interaction, n) : Ends{};
      const ConvolutionPaths paths = convolution_tables(l_edge, hp_.max_ell, hp_.use_so3);
      const Slot A = convolve(u, paths, C_edge, ends, interaction, n, t);
      Slot message = message_of(A, u, paths, C_edge, ends, interaction, n, block);
      if (skip_of(block) == Skip::species_of_message) {
        const Slot by_element = slot("m" + n + "_z", Rows::node, square(hp_.max_ell + 1), pad(C), true);
        species_mix(message, by_element, hp_.max_ell, interaction + "skip_tp.weight");
        message = by_element;
      }
      const Slot B = contract(message, l_out, t);
      const Slot h_next = slot("h" + n, Rows::node, square(l_out + 1), pad(C), true);
      mix(B, h_next, "products." + std::to_string(t) + ".linear.weight", per_l(l_out, C, C), C, C, 1 / std::sqrt(double(C)));
      if (skip_of(block) == Skip::species_of_input) species_mix(h, h_next, std::min(l_in, l_out), interaction + "skip_tp.weight");
      if (skip_of(block) == Skip::linear_of_input)
        mix(h, h_next, interaction + (block == Block::attention ? "skip_linear.weight" : "skip_tp.weight"), per_l(std::min(l_in, l_out), C, C), C, C, 1 / std::sqrt(double(C)));
      h = h_next;
      p_.layer_outputs.push_back({h, l_out});
      if (readout_of(hp_, t) >= 0) read_out(h, readout_of(hp_, t), t == T - 1 && T > 1);
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
  // One matrix [rows][columns], cut from `tensor` at `source` with consecutive rows, padded.
  WeightId matrix(const std::string& tensor, int rows, int columns, double scale, std::int64_t source = 0) {
    Weights w;
    w.size = static_cast<std::size_t>(pad(rows)) * pad(columns);
    w.blocks.push_back({tensor, source, rows, columns, columns, 0, pad(columns), scale});
    w.matrices.push_back({0, pad(rows), pad(columns)});
    return weight(std::move(w));
  }

  // The same from a torch.nn.Linear, whose weight is [columns][total], from its input `first` on.
  WeightId torch_matrix(const std::string& tensor, int rows, int columns, int total, int first) {
    Weights w;
    w.size = static_cast<std::size_t>(pad(rows)) * pad(columns);
    w.blocks.push_back({tensor, first, rows, columns, 1, 0, pad(columns), 1.0, total});
    w.matrices.push_back({0, pad(rows), pad(columns)});
    return weight(std::move(w));
  }
  WeightId row(const std::string& tensor, int columns) {
    Weights w;
    w.size = pad(columns);
    w.blocks.push_back({tensor, 0, 1, columns, columns, 0, pad(columns), 1.0});
    return weight(std::move(w));
  }

  WeightId species_table(const std::string& tensor, int C) {
    const int Z = hp_.num_elements();
    Weights w;
    w.size = static_cast<std::size_t>(Z) * pad(C);
    w.blocks.push_back({tensor, 0, Z, C, C, 0, pad(C), 1 / std::sqrt(double(Z))});
    return weight(std::move(w));
  }

  // h0 += silu(P concat of the embedded inputs)
  void embed_inputs(Slot h) {
    const int C = hp_.num_channels;
    int total = 0, first = 0;
    for (const InputEmbedding& e : hp_.embeddings) total += e.emb_dim;
    const Slot sum = slot("inputs", Rows::all, 1, pad(C), false);
    for (std::size_t k = 0; k < hp_.embeddings.size(); ++k) {
      const InputEmbedding& e = hp_.embeddings[k];
      const std::string prefix = "joint_embedding.embedders." + e.name + ".";
      const Slot embedded = slot(e.name, Rows::all, 1, pad(e.emb_dim), false);
      if (e.type == "categorical") {
        Weights table;
        table.size = static_cast<std::size_t>(e.num_classes) * pad(e.emb_dim);
        table.blocks.push_back({prefix + "weight", 0, e.num_classes, e.emb_dim, e.emb_dim, 0, pad(e.emb_dim), 1.0});
        p_.steps.push_back(EmbedSpecies{embedded, weight(std::move(table)), static_cast<int>(k)});
      } else {
        const Slot x = slot(e.name + "_value", Rows::all, 1, pad(e.in_dim), false);
        const Slot z1 = slot(e.name + "_1", Rows::all, 1, pad(e.emb_dim), false), a1 = slot(e.name + "_2", Rows::all, 1, pad(e.emb_dim), false);
        const Slot z2 = slot(e.name + "_3", Rows::all, 1, pad(e.emb_dim), false);
        p_.steps.push_back(LoadInput{x, static_cast<int>(k)});
        p_.steps.push_back(Mix{x, z1, {{0, 0, 0, 0}}, torch_matrix(prefix + "0.weight", e.in_dim, e.emb_dim, e.in_dim, 0), 0});
        p_.steps.push_back(Activate{z1, a1, Activation::silu, e.use_bias ? row(prefix + "0.bias", e.emb_dim) : -1});
        p_.steps.push_back(Mix{a1, z2, {{0, 0, 0, 0}}, torch_matrix(prefix + "2.weight", e.emb_dim, e.emb_dim, e.emb_dim, 0), 0});
        p_.steps.push_back(Activate{z2, embedded, Activation::identity, e.use_bias ? row(prefix + "2.bias", e.emb_dim) : -1});
      }
      p_.steps.push_back(Mix{embedded, sum, {{0, 0, 0, 0}}, torch_matrix("joint_embedding.project.0.weight", e.emb_dim, C, total, first), 0});
      first += e.emb_dim;
    }
    p_.steps.push_back(Activate{sum, h, Activation::silu});
  }

  // Blocks l -> l for features with every l once.
  std::vector<LinearBlock> per_l(int l_max, int C_in, int C_out) const {
    std::vector<LinearBlock> blocks;
    for (int l = 0; l <= l_max; ++l) blocks.push_back({l, l * l, l * l, static_cast<std::size_t>(l) * pad(C_in) * pad(C_out)});
    return blocks;
  }

  // Weight blocks [C_in][C_out] lie in the file in the order of `blocks`; scale[l] may differ.
  void mix(Slot x, Slot y, const std::string& tensor, const std::vector<LinearBlock>& blocks, int C_in, int C_out, const std::vector<double>& scale) {
    Weights w;
    w.size = blocks.size() * pad(C_in) * pad(C_out);
    for (std::size_t k = 0; k < blocks.size(); ++k) {
      w.blocks.push_back({tensor, static_cast<std::int64_t>(k) * C_in * C_out, C_in, C_out, C_out, blocks[k].weight, pad(C_out), scale[blocks[k].l]});
      w.matrices.push_back({blocks[k].weight, pad(C_in), pad(C_out)});
    }
    p_.steps.push_back(Mix{x, y, blocks, weight(std::move(w)), 0});
  }
  void mix(Slot x, Slot y, const std::string& tensor, const std::vector<LinearBlock>& blocks, int C_in, int C_out, double scale) {
    mix(x, y, tensor, blocks, C_in, C_out, std::vector<double>(hp_.max_ell + 1, scale));
  }

  // The fully connected tensor product with the one-hot: a matrix per l and element (mace.md 2.4).
  void species_mix(Slot x, Slot y, int l_max, const std::string& tensor) {
    const int C = hp_.num_channels, P = pad(C), Z = hp_.num_elements();
    const std::vector<LinearBlock> blocks = per_l(l_max, C, C);
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

  // Features of the nodes at both ends of an edge that enter its radial network.
  struct Ends {
    Slot sender = -1, receiver = -1;
  };
  // Att block: 64 scalars of each node's features, for both ends.
  Ends attention_inputs(Slot h, const std::string& interaction, const std::string& n, int t) {
    const int nodes = radial_node_inputs(hp_, t);
    const Slot down = slot("down" + n, Rows::all, 1, pad(nodes), t > 0);
    p_.steps.push_back(Mix{h, down, {{0, 0, 0, 0}}, matrix(interaction + "linear_down.weight", hp_.num_channels, nodes, 1 / std::sqrt(double(hp_.num_channels))), 0});
    if (t > 0) p_.steps.push_back(ExchangeRows{down});
    return {down, down};
  }
  // NonLinear block: a table for senders and one for receivers.
  Ends species_inputs(const std::string& interaction, const std::string& n) {
    const int C = hp_.num_channels;
    const Ends ends{slot("source" + n, Rows::all, 1, pad(C), false), slot("target" + n, Rows::all, 1, pad(C), false)};
    p_.steps.push_back(EmbedSpecies{ends.sender, species_table(interaction + "source_embedding.weight", C)});
    p_.steps.push_back(EmbedSpecies{ends.receiver, species_table(interaction + "target_embedding.weight", C)});
    return ends;
  }

  // Hidden layers of a radial network, whose name starts with `prefix`; the nodes' share of the first layer is formed once a node.
  // e3nn's network (layer0, ..): factors 1/sqrt(fan-in) and silu's. mace-torch's RadialMLP (net.0, ..): biases and LayerNorm.
  RadialMLP radial_network(const std::string& prefix, const std::vector<int>& hidden, Ends ends, bool torch_style, const std::string& name) {
    RadialMLP radial{p_.basis, -1, {pad(hp_.num_bessel)}, {}};
    const bool nodes = ends.sender >= 0;
    const int node_inputs = nodes ? node_width(ends.sender) : 0, inputs = hp_.num_bessel + 2 * node_inputs;
    double gain = 1;  // silu's normalisation is folded into the layer that follows it
    for (std::size_t i = 0; i < hidden.size(); ++i) {
      const int fan_in = i == 0 ? inputs : hidden[i - 1], rows = i == 0 ? hp_.num_bessel : fan_in, width = hidden[i];
      const std::string linear = prefix + (torch_style ? "net." + std::to_string(3 * i) + "." : "layer" + std::to_string(i) + ".");
      const double scale = gain / std::sqrt(double(fan_in));
      radial.weights.push_back(torch_style ? torch_matrix(linear + "weight", rows, width, fan_in, 0) : matrix(linear + "weight", rows, width, scale));
      if (torch_style) {
        const std::string norm = prefix + "net." + std::to_string(3 * i + 1) + ".";
        radial.layers.push_back({row(linear + "bias", width), row(norm + "weight", width), row(norm + "bias", width), width});
      }
      if (i == 0 && nodes)
        for (const bool receiver : {false, true}) {
          const Slot from = receiver ? ends.receiver : ends.sender;
          const Slot share = slot(name + (receiver ? "_receiver" : "_sender"), Rows::all, 1, pad(width), p_.slots[from].depends_on_positions);
          const int first = hp_.num_bessel + receiver * node_inputs;
          const WeightId w = torch_style ? torch_matrix(linear + "weight", node_inputs, width, fan_in, first)
                                         : matrix(linear + "weight", node_inputs, width, scale, static_cast<std::int64_t>(first) * width);
          p_.steps.push_back(Mix{from, share, {{0, 0, 0, 0}}, w, 0});
          (receiver ? radial.of_receiver : radial.of_sender) = share;
        }
      radial.widths.push_back(pad(width));
      gain = hp_.silu_factor;
    }
    radial.unit = torch_style;
    radial.hidden = slot(name, Rows::edge, 1, pad(hidden.back() + (torch_style ? 1 : 0)), true);
    return radial;
  }
  int node_width(Slot s) const { return node_widths_.at(s); }

  Slot convolve(Slot u, const ConvolutionPaths& tables, int C, Ends ends, const std::string& interaction, const std::string& n, int t) {
    const bool torch_style = block_of(hp_, t) == Block::non_linear;
    if (ends.sender >= 0) node_widths_[ends.sender] = node_widths_[ends.receiver] = radial_node_inputs(hp_, t);
    const std::string prefix = interaction + "conv_tp_weights.";
    const std::vector<int> hidden = radial_widths(hp_, t);
    const int fan_in = hidden.back(), layers = static_cast<int>(hidden.size());
    RadialMLP radial = radial_network(prefix, hidden, ends, torch_style, "radial" + n);
    radial.times_envelope = !hp_.apply_cutoff;

    Convolve step{u, p_.Y, radial.hidden, -1, tables, -1};
    const int paths = static_cast<int>(tables.paths.size()), columns = paths * pad(C), rows = p_.slots[radial.hidden].channels;
    Weights w;
    w.size = static_cast<std::size_t>(rows) * columns;
    for (int q = 0; q < paths; ++q) {
      const std::size_t target = static_cast<std::size_t>(q) * pad(C);
      if (torch_style) {
        const std::string last = prefix + "net." + std::to_string(3 * layers) + ".";
        w.blocks.push_back({last + "weight", static_cast<std::int64_t>(q) * C * fan_in, fan_in, C, 1, target, columns, 1.0, fan_in});
        w.blocks.push_back({last + "bias", static_cast<std::int64_t>(q) * C, 1, C, C, static_cast<std::size_t>(fan_in) * columns + target, columns, 1.0});
      } else {
        w.blocks.push_back({prefix + "layer" + std::to_string(layers) + ".weight", static_cast<std::int64_t>(q) * C, fan_in, C, static_cast<std::int64_t>(paths) * C, target, columns,
                            hp_.silu_factor / std::sqrt(double(fan_in))});
      }
    }
    w.matrices.push_back({0, rows, columns});
    step.weight = weight(std::move(w));
    step.A = slot("A" + n, Rows::node, step.tables.num_out, pad(C), true);
    p_.steps.push_back(std::move(radial));
    p_.steps.push_back(step);
    return step.A;
  }

  Slot density(Ends ends, const std::string& interaction, const std::string& n, bool torch_style) {
    const std::string prefix = interaction + "density_fn.";
    Density step{p_.basis, slot("rho" + n, Rows::node, 1, 1, true), -1, !hp_.apply_cutoff};
    Weights w;
    if (torch_style) {
      constexpr int width = 64;  // fixed upstream
      RadialMLP radial = radial_network(prefix, {width}, ends, true, "density" + n);
      step.hidden = radial.hidden;
      p_.steps.push_back(std::move(radial));
      w.size = p_.slots[step.hidden].channels;
      w.blocks.push_back({prefix + "net.3.weight", 0, width, 1, 1, 0, 1, 1.0});
      w.blocks.push_back({prefix + "net.3.bias", 0, 1, 1, 1, width, 1, 1.0});
    } else {
      w.size = pad(hp_.num_bessel);
      w.blocks.push_back({prefix + "layer0.weight", 0, hp_.num_bessel, 1, 1, 0, 1, 1 / std::sqrt(double(hp_.num_bessel))});
    }
    step.weight = weight(std::move(w));
    p_.steps.push_back(step);
    return step.rho;
  }

  // The message of an atom from its neighbour sum A (mace.md 2.6).
  Slot message_of(Slot A, Slot u, const ConvolutionPaths& paths, int C_edge, Ends ends, const std::string& interaction, const std::string& n, Block block) {
    const int C = hp_.num_channels, D = square(hp_.max_ell + 1);
    if (block == Block::non_linear) {
      const Slot x = slot("x" + n, Rows::node, D + hp_.max_ell, pad(C), true), scaled = slot("g" + n, Rows::node, D + hp_.max_ell, pad(C), true);
      const Slot gated = slot("gated" + n, Rows::node, D, pad(C), true), m = slot("m" + n, Rows::node, D, pad(C), true);
      const Slot rho = density(ends, interaction, n, true);
      std::vector<PathBlock> one, residual;
      for (const auto& path : paths.paths) one.push_back({path.l3, path.out_offset});
      for (int l = 0; l <= edge_lmax_of(u); ++l) residual.push_back({l, l * l});
      gated_mix(A, x, interaction + "linear_1.weight", one, C_edge);
      Weights alpha_beta;
      alpha_beta.size = pad(2);
      alpha_beta.blocks.push_back({interaction + "alpha", 0, 1, 1, 1, 0, 1, 1.0});
      alpha_beta.blocks.push_back({interaction + "beta", 0, 1, 1, 1, 1, 1, 1.0});
      p_.steps.push_back(Normalize{x, rho, scaled, weight(std::move(alpha_beta))});
      gated_mix(u, scaled, interaction + "linear_res.weight", residual, C_edge);
      p_.steps.push_back(Gate{scaled, gated, hp_.max_ell, hp_.silu_factor, hp_.sigmoid_factor});
      mix(gated, m, interaction + "linear_2.weight", per_l(hp_.max_ell, C, C), C, C, 1 / std::sqrt(double(C)));
      return m;
    }
    std::vector<LinearBlock> blocks;
    std::vector<double> scale(hp_.max_ell + 1, 0.0);
    for (const auto& path : paths.paths) {
      blocks.push_back({path.l3, path.out_offset, path.l3 * path.l3, blocks.size() * pad(C_edge) * pad(C)});
      scale[path.l3] += C_edge;
    }
    const bool dense = has_density(block);
    for (double& s : scale) s = 1 / (std::sqrt(s) * (dense ? 1 : hp_.avg_num_neighbors));
    const Slot m = slot("m" + n, Rows::node, D, pad(C), true);
    mix(A, m, interaction + "linear.weight", blocks, C_edge, C, scale);
    if (!dense) return m;
    const Slot scaled = slot("m" + n + "_rho", Rows::node, D, pad(C), true);
    const Slot rho = density(ends, interaction, n, false);
    Weights ones;
    ones.size = pad(2), ones.constant = {1, 1};
    p_.steps.push_back(Normalize{m, rho, scaled, weight(std::move(ones))});
    return scaled;
  }
  int edge_lmax_of(Slot u) const {
    int l = 0;
    while (square(l + 1) < p_.slots[u].components) ++l;
    return l;
  }

  // A linear map onto scalars, the gates of l = 1 .. max_ell, and features of l > 0: what Gate reads. The file holds, for each
  // block of x in order, [C_in][C + C max_ell] onto scalars and gates if its l = 0, else [C_in][C].
  struct PathBlock {
    int l, component;
  };
  void gated_mix(Slot x, Slot y, const std::string& tensor, const std::vector<PathBlock>& from, int C_in) {
    const int C = hp_.num_channels, D = square(hp_.max_ell + 1);
    const std::size_t size = static_cast<std::size_t>(pad(C_in)) * pad(C);
    std::vector<double> fan_in(hp_.max_ell + 1, 0.0);
    for (const PathBlock& b : from) fan_in[b.l] += C_in;
    std::vector<LinearBlock> blocks;
    Weights w;
    std::int64_t source = 0;
    for (const PathBlock& b : from) {
      const int targets = b.l == 0 ? 1 + hp_.max_ell : 1;
      for (int k = 0; k < targets; ++k) {
        const std::size_t at = blocks.size() * size;
        blocks.push_back({b.l, b.component, b.l > 0 ? b.l * b.l : k == 0 ? 0 : D + k - 1, at});
        w.blocks.push_back({tensor, source + static_cast<std::int64_t>(k) * C, C_in, C, static_cast<std::int64_t>(targets) * C, at, pad(C), 1 / std::sqrt(fan_in[b.l])});
        w.matrices.push_back({at, pad(C_in), pad(C)});
      }
      source += static_cast<std::int64_t>(targets) * C_in * C;
    }
    w.size = blocks.size() * size;
    p_.steps.push_back(Mix{x, y, blocks, weight(std::move(w)), 0});
  }

  Slot contract(Slot A, int l_out, int t) {
    std::vector<std::vector<SparseU>> bases;
    Contract step{A, -1, {}, {}, {}, contraction_species(hp_)};
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

  void read_out(Slot h, int number, bool non_linear) {
    const int C = hp_.num_channels, H = hp_.num_heads(), M = hp_.MLP_width, HM = H * M;
    const std::string prefix = "readouts." + std::to_string(number) + ".";
    if (!non_linear) {
      p_.steps.push_back(ReadOut{h, 0, pad(H), matrix(prefix + "linear.weight", C, H, 1 / std::sqrt(double(C))), -1});
      return;
    }
    const double factor = hp_.gate_factor / std::sqrt(double(HM));
    ReadOut step{h, M, pad(HM), matrix(prefix + "linear_1.weight", C, HM, 1 / std::sqrt(double(C))), -1, activation_of(hp_.gate)};
    Weights second;  // [padded H*M][H], rows padded only
    second.size = static_cast<std::size_t>(pad(HM)) * H;
    second.blocks.push_back({prefix + "linear_2.weight", 0, HM, H, H, 0, H, factor});
    step.W2 = weight(std::move(second));
    if (hp_.readout == "NonLinearBiasReadoutBlock")
      step.Wm = matrix(prefix + "linear_mid.weight", HM, HM, factor), step.bm = row(prefix + "linear_mid.bias", HM), step.b2 = row(prefix + "linear_2.bias", H);
    p_.steps.push_back(step);
  }
  static Activation activation_of(const std::string& gate) {
    return gate == "silu" ? Activation::silu : gate == "tanh" ? Activation::tanh : gate == "abs" ? Activation::abs : Activation::identity;
  }

  const Hyperparameters& hp_;
  const Tensors& tensors_;
  int line_;
  std::map<Slot, int> node_widths_;  // scalars, without padding, of the slots that enter radial networks
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

}  // namespace macekit
