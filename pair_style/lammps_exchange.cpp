// SPDX-License-Identifier: GPL-2.0-only
#include "lammps_exchange.h"

#include "comm.h"
#include "pair.h"

#include <algorithm>
#include <cstring>

#include "kernels/edges.hpp"

namespace macekit {

void LammpsExchange::attach(LAMMPS_NS::Pair *pair, LAMMPS_NS::Comm *comm, int columns, bool single) {
  pair_ = pair, comm_ = comm;
  widest_ = single ? (columns + 1) / 2 : columns;
}

void LammpsExchange::send(double *wide, float *narrow, int columns, bool forward) {
  wide_ = wide, narrow_ = narrow, columns_ = columns;
  doubles_ = narrow ? (columns + 1) / 2 : columns;
  // Comm reads the sizes from the pair; passing them as an argument means something else in tiled communication.
  const int forward_size = pair_->comm_forward, reverse_size = pair_->comm_reverse, off_size = pair_->comm_reverse_off;
  pair_->comm_forward = pair_->comm_reverse = pair_->comm_reverse_off = doubles_;
  const auto space = pair_->execution_space;  // by which LAMMPS's Kokkos package chooses between messages on host and device
  pair_->execution_space = resident_ ? LAMMPS_NS::Device : LAMMPS_NS::Host;
  if (forward) comm_->forward_comm(pair_);
  else comm_->reverse_comm(pair_);
  pair_->execution_space = space;
  pair_->comm_forward = forward_size, pair_->comm_reverse = reverse_size, pair_->comm_reverse_off = off_size;
}

int LammpsExchange::read(int row, double *buffer) const {
  if (row < 0) std::fill_n(buffer, doubles_, 0.0);
  else if (wide_) std::copy_n(wide_ + static_cast<long>(row) * columns_, columns_, buffer);
  else std::memcpy(buffer, narrow_ + static_cast<long>(row) * columns_, columns_ * sizeof(float));
  return doubles_;
}

void LammpsExchange::write(int row, const double *buffer) {
  if (row < 0) return;
  if (wide_) std::copy_n(buffer, columns_, wide_ + static_cast<long>(row) * columns_);
  else std::memcpy(narrow_ + static_cast<long>(row) * columns_, buffer, columns_ * sizeof(float));
}

void LammpsExchange::add(int row, const double *buffer) {
  if (row < 0) return;
  if (wide_) {
    double *target = wide_ + static_cast<long>(row) * columns_;
    for (int k = 0; k < columns_; ++k) target[k] += buffer[k];
  } else {
    float *target = narrow_ + static_cast<long>(row) * columns_, value;
    for (int k = 0; k < columns_; ++k) {
      std::memcpy(&value, reinterpret_cast<const char *>(buffer) + k * sizeof(float), sizeof(float));
      target[k] += value;
    }
  }
}

int LammpsExchange::pack_forward(int n, const int *atoms, double *buffer) const {
  int m = 0;
  for (int k = 0; k < n; ++k) m += read((*row_of_atom_)[atoms[k]], buffer + m);
  return m;
}
void LammpsExchange::unpack_forward(int n, int first, const double *buffer) {
  for (int k = 0; k < n; ++k) write((*row_of_atom_)[first + k], buffer + static_cast<long>(k) * doubles_);
}
int LammpsExchange::pack_reverse(int n, int first, double *buffer) const {
  int m = 0;
  for (int k = 0; k < n; ++k) m += read((*row_of_atom_)[first + k], buffer + m);
  return m;
}
void LammpsExchange::unpack_reverse(int n, const int *atoms, const double *buffer) {
  for (int k = 0; k < n; ++k) add((*row_of_atom_)[atoms[k]], buffer + static_cast<long>(k) * doubles_);
}


int LammpsExchange::pack_resident(int n, const int *atoms, int first, double *buffer) const {
  if (wide_) portable::pack_rows<double>({wide_, columns_, doubles_, n, atoms, first, buffer});
  else portable::pack_rows<float>({narrow_, columns_, doubles_, n, atoms, first, buffer});
  return n * doubles_;
}
void LammpsExchange::unpack_resident(int n, int first, double *buffer) const {
  if (wide_) portable::unpack_rows<double>({wide_, columns_, doubles_, n, nullptr, first, buffer});
  else portable::unpack_rows<float>({narrow_, columns_, doubles_, n, nullptr, first, buffer});
}
void LammpsExchange::add_resident(int n, const int *atoms, double *buffer) const {
  if (wide_) portable::add_rows<double>({wide_, columns_, doubles_, n, atoms, 0, buffer});
  else portable::add_rows<float>({narrow_, columns_, doubles_, n, atoms, 0, buffer});
}

}  // namespace macekit
