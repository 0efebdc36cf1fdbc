// SPDX-License-Identifier: MIT
// Runs a Program on plain numbers (energies, edge gradients) or on dual numbers (parameter gradients).
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "potentials/buffer.hpp"
#include "potentials/exchange.hpp"
#include "potentials/program.hpp"
#include "potentials/spline.hpp"

namespace macekit {

/// Weights in the layout of the kernels, made from file tensors; and back, for gradients.
template <class T>
class PackedWeights {
 public:
  PackedWeights(const Program& program, Backend backend);
  /// `find(name)` returns the tensor's data in the file's layout.
  template <class Find>
  void pack(const Find& find);
  const T* weight(WeightId id) const { return weight_[id].data(); }
  const T* transposed(WeightId id) const { return transposed_[id].data(); }
  const T* coefficients(int contraction) const { return coefficients_[contraction].data(); }

 private:
  template <class>
  friend class Executor;
  const Program& program_;
  Backend backend_;
  std::vector<Buffer<T>> weight_, transposed_, coefficients_;
};

/// Arrays of a backend that mirror arrays of the host; on the host itself the arrays themselves, without a copy.
class Mirror {
 public:
  explicit Mirror(Backend backend) : backend_(backend) {}
  /// The address at which kernels find `count` elements of the host array; valid until the next place() of the same name.
  template <class T>
  const T* place(const std::string& name, const T* host, std::size_t count) {
    if (backend_ == Backend::simd || !host) return host;
    auto& buffer = buffers_.try_emplace(name, backend_).first->second;
    buffer.copy_in(reinterpret_cast<const char*>(host), count * sizeof(T));
    return reinterpret_cast<const T*>(buffer.data());
  }
  /// The same for arrays that change rarely: they are compared with what is there already, and travel only if they differ.
  template <class T>
  const T* place_again(const std::string& name, const T* host, std::size_t count) {
    if (backend_ == Backend::simd || !host) return host;
    const char* bytes = reinterpret_cast<const char*>(host);
    std::vector<char>& known = known_[name];
    if (known.size() == count * sizeof(T) && std::equal(known.begin(), known.end(), bytes)) return reinterpret_cast<const T*>(buffers_.at(name).data());
    known.assign(bytes, bytes + count * sizeof(T));
    return place(name, host, count);
  }

 private:
  Backend backend_;
  std::map<std::string, Buffer<char>> buffers_;
  std::map<std::string, std::vector<char>> known_;
};

/// What does not change between evaluations and is no weight.
struct ExecutorConstants {
  int max_ell, num_species, num_heads;
  RadialBasis radial;                ///< its pointers are those of the vectors below
  std::vector<double> centres;       ///< [num_bessel]
  std::vector<double> radius;        ///< [species] covalent radii of the transform
  std::vector<double> scale;         ///< [H]
  struct {
    double c[4] = {}, exponent = 0, prefactor = 0;
    std::vector<double> charge, radius;  ///< [species]
  } repulsion;
};

template <class T>
class RadialTables;

template <class N>
class Executor {
 public:
  using T = scalar_t<N>;
  /// @param tables  of a program with TabulatedConvolve steps
  Executor(const Program& program, const PackedWeights<T>& weights, const ExecutorConstants& constants, Backend backend, const RadialTables<T>* tables = nullptr);

  /// Runs all steps. Graph and results are host arrays, whatever the backend.
  /// @param vec_dot  [E][3] tangents of the edge vectors (dual numbers), may be null for none
  /// @param node_energy  [N] sum of scaled read-outs and repulsion is added; null for none
  /// @param graph_energy [N] what belongs to the energy but to no node's; added to; null for none
  void forward(const Graph& graph, Exchange& exchange, const double* vec_dot, double* node_energy, double* graph_energy);
  /// Of the last forward(). Plain numbers: vec_bar [E][3] is added to.
  void adjoint(Exchange& exchange, double* vec_bar);
  /// Both at once, for plain numbers: what follows the last exchange concerns single atoms, so it is run forward and back for
  /// one block of atoms after the other, in memory for one block.
  /// @param vec_bar  null: it stays where edge_gradient() says
  void forward_and_adjoint(const Graph& graph, Exchange& exchange, double* node_energy, double* graph_energy, double* vec_bar);
  /// Dual numbers: `plain` has just run forward() and adjoint() on the graph of the next forward(); its values and adjoints are those of
  /// the dual numbers here, so that linear maps need not compute them again. Null: nothing is known.
  void reuse(const Executor<T>* plain) { plain_ = backend_ == Backend::simd ? plain : nullptr; }
  /// Of the last forward(). Dual numbers: seeds the energy of each node with 1 + eps node_seed[i], collects parameter tangents.
  /// @param after_step  called after the adjoint of each step, in the order of adjoint_order()
  void parameter_adjoint(Exchange& exchange, const double* node_seed, const std::function<void()>& after_step = {});
  /// Steps in the order in which their adjoints run.
  std::vector<int> adjoint_order() const;
  /// After parameter_adjoint: adds the gradients to file-layout arrays, `find(name)` returning a pointer or null.
  template <class S, class Find>
  void unpack_gradients(const Find& find) const;

  /// Of tables that are made anew at each evaluation (plain numbers): the largest error of the splines of hidden units midway between
  /// sites, relative to the largest of them.
  double table_error();
  /// [E][3] of the last adjoint, in the memory of the backend.
  const double* edge_gradient() const { return vec_bar_.data(); }
  std::vector<T> slot(Slot s) const { return value_[s].to_host(); }
  std::size_t memory() const;

 private:
  template <class>
  friend class Executor;
  void prepare(const Graph& graph, int block);
  void prepare_nodes(int begin, int end);
  void start(const Graph& graph, const double* vec_dot, double* node_energy, int block);
  void run_steps(bool local, Exchange& exchange);
  void run_adjoint_steps(bool local, Exchange& exchange, const std::function<void()>& after_step = {});
  void reverse(Exchange& exchange, const std::function<void()>& after_step = {});
  void zero_bars(bool local);
  void geometry_adjoint(double* vec_bar);
  void give_energies(double* node_energy, double* graph_energy) const;
  int rows(Rows kind) const {
    return kind == Rows::node ? nodes_.num_nodes : kind == Rows::all ? graph_.num_rows : kind == Rows::edge ? graph_.num_edges : num_sites_;
  }
  // Row `begin_` of arrays of atoms; those of local steps hold the block alone.
  void place_sites();
  std::size_t row_size(Slot s) const { return static_cast<std::size_t>(program_.slots[s].components) * planes<N> * program_.slots[s].channels; }
  std::size_t shift(Slot s) const { return program_.slots[s].rows == Rows::edge || program_.slots[s].rows == Rows::site || local_slot_[s] ? 0 : begin_ * row_size(s); }
  T* value(Slot s) { return value_[s].data() + shift(s); }
  T* value_bar(Slot s) { return bar_[s].data() + shift(s); }
  bool has_bar(Slot s) const { return is_dual<N> || program_.slots[s].depends_on_positions; }
  T* bar(Slot s) { return has_bar(s) ? value_bar(s) : nullptr; }
  bool knows_bar(Slot s) const;
  void copy_values(Slot s, const Buffer<T>& from, Buffer<T>& to) const;
  template <class Carry>
  void carry(Buffer<T>& rows, int columns, bool resident, const Carry& f);

  // One pair of functions for each kind of step.
  void run(const EmbedSpecies&, Exchange&);
  void run(const LoadInput&, Exchange&);
  void run(const Activate&, Exchange&);
  void run(const RadialMLP&, Exchange&);
  void run(const Convolve&, Exchange&);
  void run(const Tabulate&, Exchange&);
  void run(const TabulatedConvolve&, Exchange&);
  void run(const Density&, Exchange&);
  void run(const Normalize&, Exchange&);
  void run(const Gate&, Exchange&);
  void run(const Mix&, Exchange&);
  void run(const Contract&, Exchange&);
  void run(const ExchangeRows&, Exchange&);
  void run(const ReadOut&, Exchange&);
  void run(const Repulsion&, Exchange&);
  void run_adjoint(const EmbedSpecies&, Exchange&);
  void run_adjoint(const LoadInput&, Exchange&);
  void run_adjoint(const Activate&, Exchange&);
  void run_adjoint(const RadialMLP&, Exchange&);
  void run_adjoint(const Convolve&, Exchange&);
  void run_adjoint(const Tabulate&, Exchange&);
  void run_adjoint(const TabulatedConvolve&, Exchange&);
  void run_adjoint(const Density&, Exchange&);
  void run_adjoint(const Normalize&, Exchange&);
  void run_adjoint(const Gate&, Exchange&);
  void run_adjoint(const Mix&, Exchange&);
  void run_adjoint(const Contract&, Exchange&);
  void run_adjoint(const ExchangeRows&, Exchange&);
  void run_adjoint(const ReadOut&, Exchange&);
  void run_adjoint(const Repulsion&, Exchange&);

  RadialArgs<N> args(const RadialMLP&);
  ConvolutionArgs<N> args(const Convolve&);
  TabulateArgs<T> args(const Tabulate&);
  TabulatedConvolutionArgs<N> args(const TabulatedConvolve&);
  LinearArgs<N> args(const Mix&);
  ContractionArgs<N> args(const Contract&);
  ReadoutArgs<N> args(const ReadOut&);
  ActivateArgs<N> args(const Activate&);
  DensityArgs<N> args(const Density&);
  NormalizeArgs<N> args(const Normalize&);
  GateArgs<N> args(const Gate&);
  GeometryArgs<N> geometry_args();
  RepulsionArgs repulsion_args();
  const T* weight_or_null(WeightId id) const { return id < 0 ? nullptr : weights_.weight(id); }
  T* weight_bar_or_null(WeightId id) { return is_dual<N> && id >= 0 ? weight_bar_[id].data() : nullptr; }
  int row_count(Slot x, Slot y) const;

  const Program& program_;
  const PackedWeights<T>& weights_;
  ExecutorConstants constants_;
  Backend backend_;
  const RadialTables<T>* tables_;
  const Kernels<N>& kernels_;
  std::vector<Buffer<T>> value_, bar_, weight_bar_, coefficient_bar_;
  struct Table {  // of a Tabulate step
    Buffer<T> spline, coefficients, spline_bar, bar;
    Buffer<const T*> of_pair;
  };
  std::vector<Table> trained_tables_;
  std::optional<QuinticSpline> spline_;
  int num_sites_ = 0;  // and, for plain numbers, the places midway between them
  Mirror mirror_;
  std::map<const void*, ConvolutionView> convolutions_;  // tables of each step, where kernels read them
  std::map<const void*, ContractionView> contractions_;
  std::vector<bool> local_step_, local_slot_;  // after the last exchange, of atoms alone
  std::vector<bool> only_mixed_;               // slots that linear maps alone write
  const Executor<T>* plain_ = nullptr;         // see reuse()
  RadialBasis radial_;
  const double *scale_, *ones_, *repulsion_charge_, *repulsion_radius_;
  std::vector<double> one_of_each_head_;
  // Of the last forward(), where kernels read them:
  Graph graph_;
  Graph nodes_;    // the atoms that steps run over: all, or those of a block
  int begin_ = 0;  // the first of them
  const Inputs* inputs_ = nullptr;  // on the host, with the graph that they belong to
  Graph host_graph_;
  std::vector<int> head_storage_, receiver_storage_, zeros_;
  std::map<const void*, std::vector<int>> class_storage_;
  std::map<const void*, const int*> class_of_row_;
  const int *head_ = nullptr, *receiver_ = nullptr, *no_species_ = nullptr;  // of each node, of each edge; a zero for each node
  const double *vec_dot_ = nullptr, *node_seed_ = nullptr;
  Buffer<double> node_energy_, graph_energy_, vec_bar_;
  Buffer<T> workspace_;  // of convolutions
  bool wants_energy_ = false;
  std::vector<std::vector<int>> rows_of_species_;  // of the atoms that steps run over; on the host
  std::vector<int> sorted_rows_storage_;           // the same, one after the other
  const int* sorted_rows_ = nullptr;
};

}  // namespace macekit
