// SPDX-License-Identifier: MIT
// Runs a Program on plain numbers (energies, edge gradients) or on dual numbers (parameter gradients).
#pragma once
#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "kernels/graph.hpp"
#include "kernels/geometry.hpp"
#include "kernels/number.hpp"
#include "kernels/radial.hpp"
#include "kernels/readout.hpp"
#include "potentials/exchange.hpp"
#include "potentials/program.hpp"

namespace macekit {

/// Uninitialised, cache-line aligned, grow-only memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(other.data_), capacity_(other.capacity_), size_(other.size_) { other.data_ = nullptr, other.capacity_ = other.size_ = 0; }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { std::free(data_); }
  void resize(std::size_t size) {
    size_ = size;
    if (size <= capacity_) return;
    std::free(data_);
    const std::size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
    capacity_ = bytes / sizeof(T);
  }
  void zero() { std::fill_n(data_, size_, T(0)); }
  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return capacity_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::size_t capacity_ = 0, size_ = 0;
};

/// Weights in the layout of the kernels, made from file tensors; and back, for gradients.
template <class T>
class PackedWeights {
 public:
  explicit PackedWeights(const Program& program);
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
  std::vector<Buffer<T>> weight_, transposed_, coefficients_;
};

/// What does not change between evaluations and is no weight.
struct ExecutorConstants {
  int max_ell, num_bessel, envelope_power, num_species, num_heads;
  double r_max;
  std::vector<double> bessel_weights;
  std::vector<double> scale;  ///< [H]
};

template <class N>
class Executor {
 public:
  using T = scalar_t<N>;
  Executor(const Program& program, const PackedWeights<T>& weights, const ExecutorConstants& constants)
      : program_(program), weights_(weights), constants_(constants) {}

  /// Runs all steps. @param vec_dot [E][3] tangents of the edge vectors (dual numbers), may be null for none
  /// @param node_energy [N] sum of scaled read-outs is added; null for none
  void forward(const Graph& graph, Exchange& exchange, const double* vec_dot, double* node_energy);
  /// Plain numbers: vec_bar [E][3] is added to.
  void adjoint(const Graph& graph, Exchange& exchange, double* vec_bar);
  /// Dual numbers: seeds each graph's energy with 1 + eps energy_seed[g] and collects parameter tangents.
  void parameter_adjoint(const Graph& graph, Exchange& exchange, const double* energy_seed);
  /// After parameter_adjoint: adds the gradients to file-layout arrays, `find(name)` returning a pointer or null.
  template <class S, class Find>
  void unpack_gradients(const Find& find) const;

  const T* slot(Slot s) const { return value_[s].data(); }
  std::size_t memory() const;

 private:
  void prepare(const Graph& graph);
  int rows(const Graph& graph, Rows kind) const { return kind == Rows::node ? graph.num_nodes : kind == Rows::all ? graph.num_rows : graph.num_edges(); }
  T* bar(Slot s) { return is_dual<N> || program_.slots[s].depends_on_positions ? bar_[s].data() : nullptr; }
  void reverse(const Graph& graph, Exchange& exchange, const double* seed);

  // One pair of functions for each kind of step.
  void run(const EmbedSpecies&, const Graph&, Exchange&);
  void run(const RadialMLP&, const Graph&, Exchange&);
  void run(const Convolve&, const Graph&, Exchange&);
  void run(const Mix&, const Graph&, Exchange&);
  void run(const Contract&, const Graph&, Exchange&);
  void run(const ExchangeRows&, const Graph&, Exchange&);
  void run(const ReadOut&, const Graph&, Exchange&);
  void run_adjoint(const EmbedSpecies&, const Graph&, Exchange&);
  void run_adjoint(const RadialMLP&, const Graph&, Exchange&);
  void run_adjoint(const Convolve&, const Graph&, Exchange&);
  void run_adjoint(const Mix&, const Graph&, Exchange&);
  void run_adjoint(const Contract&, const Graph&, Exchange&);
  void run_adjoint(const ExchangeRows&, const Graph&, Exchange&);
  void run_adjoint(const ReadOut&, const Graph&, Exchange&);

  RadialArgs<N> args(const RadialMLP&, const Graph&);
  ConvolutionArgs<N> args(const Convolve&, const Graph&);
  LinearArgs<N> args(const Mix&, const Graph&);
  ContractionArgs<N> args(const Contract&, const Graph&);
  ReadoutArgs<N> args(const ReadOut&, const Graph&);
  GeometryArgs<N> geometry_args(const Graph&);

  const Program& program_;
  const PackedWeights<T>& weights_;
  ExecutorConstants constants_;
  std::vector<Buffer<T>> value_, bar_, weight_bar_, coefficient_bar_;
  std::vector<int> head_;                          // of each node
  std::vector<std::vector<int>> rows_of_species_;  // of nodes
  const double* vec_dot_ = nullptr;
  const double* node_seed_ = nullptr;
  double* node_energy_ = nullptr;
};

}  // namespace macekit
