// SPDX-License-Identifier: GPL-2.0-only
#pragma once
#include <vector>

#include "potentials/exchange.hpp"

namespace LAMMPS_NS {
class Comm;
class Pair;
}

namespace macekit {

/// Carries features to ghosts and adjoints home through LAMMPS's own communication: brick or tiled, any number of swaps.
/// LAMMPS calls back the pack and unpack functions, which address rows by atom index.
class LammpsExchange final : public Exchange {
 public:
  static constexpr int force_columns = 9;  ///< of forces (3) and virials (9), which travel home like adjoints

  /// @param columns  widest row of features;  @param single  whether features are float (two travel in one double)
  void attach(LAMMPS_NS::Pair *pair, LAMMPS_NS::Comm *comm, int columns, bool single);
  /// Doubles in the widest message of one atom.
  int widest() const { return widest_; }
  /// @param resident  rows are atoms, lie in the memory of a device, and so do LAMMPS's messages
  void use_rows(const std::vector<int> &row_of_atom, bool resident) { row_of_atom_ = &row_of_atom, resident_ = resident; }
  bool resident() const override { return resident_; }

  void forward(double *rows, int columns) override { send(rows, nullptr, columns, true); }
  void forward(float *rows, int columns) override { send(nullptr, rows, columns, true); }
  void reverse(double *rows, int columns) override { send(rows, nullptr, columns, false); }
  void reverse(float *rows, int columns) override { send(nullptr, rows, columns, false); }

  int pack_forward(int n, const int *atoms, double *buffer) const;
  void unpack_forward(int n, int first, const double *buffer);
  int pack_reverse(int n, int first, double *buffer) const;
  void unpack_reverse(int n, const int *atoms, const double *buffer);
  // The same where rows and messages are on a device; `atoms` and `buffer` too.
  int pack_resident(int n, const int *atoms, int first, double *buffer) const;
  void unpack_resident(int n, int first, double *buffer) const;
  void add_resident(int n, const int *atoms, double *buffer) const;

 private:
  void send(double *wide, float *narrow, int columns, bool forward);
  int read(int row, double *buffer) const;
  void write(int row, const double *buffer);
  void add(int row, const double *buffer);

  LAMMPS_NS::Pair *pair_ = nullptr;
  LAMMPS_NS::Comm *comm_ = nullptr;
  const std::vector<int> *row_of_atom_ = nullptr;
  int widest_ = 0;
  bool resident_ = false;
  // What travels now: rows of doubles or of floats.
  double *wide_ = nullptr;
  float *narrow_ = nullptr;
  int columns_ = 0, doubles_ = 0;
};

}  // namespace macekit
