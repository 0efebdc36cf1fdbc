// SPDX-License-Identifier: GPL-2.0-only
#include "lammps_exchange.h"

#include "comm.h"
#include "pair.h"

#include <algorithm>
#include <cstring>

namespace macekit {

namespace {
constexpr int voigt[6] = {0, 4, 8, 1, 2, 5};
}

void LammpsExchange::attach(LAMMPS_NS::Pair *pair, LAMMPS_NS::Comm *comm, int columns, bool single) {
  pair_ = pair, comm_ = comm;
  widest_ = single ? (columns + 1) / 2 : columns;
}

void LammpsExchange::send(double *wide, float *narrow, int columns, bool forward) {
  wide_ = wide, narrow_ = narrow, force_ = nullptr, columns_ = columns;
  doubles_ = narrow ? (columns + 1) / 2 : columns;
  // Comm reads the sizes from the pair; passing them as an argument means something else in tiled communication.
  const int forward_size = pair_->comm_forward, reverse_size = pair_->comm_reverse, off_size = pair_->comm_reverse_off;
  pair_->comm_forward = pair_->comm_reverse = pair_->comm_reverse_off = doubles_;
  if (forward) comm_->forward_comm(pair_);
  else comm_->reverse_comm(pair_);
  pair_->comm_forward = forward_size, pair_->comm_reverse = reverse_size, pair_->comm_reverse_off = off_size;
}

void LammpsExchange::reverse_forces(std::vector<double> &force, std::vector<double> *virial) {
  wide_ = nullptr, narrow_ = nullptr, force_ = force.data(), virial_ = virial ? virial->data() : nullptr;
  doubles_ = virial ? 9 : 3;
  const int reverse_size = pair_->comm_reverse, off_size = pair_->comm_reverse_off;
  pair_->comm_reverse = pair_->comm_reverse_off = doubles_;
  comm_->reverse_comm(pair_);
  pair_->comm_reverse = reverse_size, pair_->comm_reverse_off = off_size;
}

int LammpsExchange::read(int row, double *buffer) const {
  if (row < 0) std::fill_n(buffer, doubles_, 0.0);
  else if (force_) {
    std::copy_n(force_ + 3L * row, 3, buffer);
    for (int k = 0; virial_ && k < 6; ++k) buffer[3 + k] = virial_[9L * row + voigt[k]];
  } else if (wide_) std::copy_n(wide_ + static_cast<long>(row) * columns_, columns_, buffer);
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
  if (force_) {
    for (int k = 0; k < 3; ++k) force_[3L * row + k] += buffer[k];
    for (int k = 0; virial_ && k < 6; ++k) virial_[9L * row + voigt[k]] += buffer[3 + k];
  } else if (wide_) {
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

}  // namespace macekit
