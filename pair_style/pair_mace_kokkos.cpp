// SPDX-License-Identifier: GPL-2.0-only
#include "pair_mace_kokkos.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "comm.h"
#include "force.h"
#include "kokkos.h"
#include "neigh_list_kokkos.h"
#include "neigh_request.h"
#include "neighbor.h"

#include "kernels/edges.hpp"
#include "lammps_exchange.h"

using namespace LAMMPS_NS;

namespace {
using MyDevice = LMPDeviceType;
}

PairMACEKokkos::PairMACEKokkos(LAMMPS *lmp) : PairMACE(lmp), list_(new macekit::NeighborList) {
  kokkosable = 1;
  reverse_comm_device = 1;
  atomKK = (AtomKokkos *) atom;
  execution_space = Host;
  datamask_read = X_MASK | F_MASK | TYPE_MASK;
  datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
}
PairMACEKokkos::~PairMACEKokkos() = default;

void PairMACEKokkos::settings(int narg, char **arg) {
  PairMACE::settings(narg, arg);
  execution_space = on_device() ? Device : Host;
}

void PairMACEKokkos::init_style() {
  PairMACE::init_style();
  if (!on_device()) return;
  if (force->pair != this) fail_together("mace/kk on a device cannot be part of pair_style hybrid; use pair_style mace there, whose kernels run on the device as well.");
  neighbor->find_request(this)->set_kokkos_device(1);
}

void PairMACEKokkos::compute(int eflag, int vflag) {
  const ExecutionSpace space = execution_space;
  if (space == Device) atomKK->sync(Device, X_MASK | F_MASK);
  atomKK->sync(Host, space == Device ? TYPE_MASK : datamask_read);
  PairMACE::compute(eflag, vflag);
  atomKK->modified(space, F_MASK);
}

PairMACE::DeviceArrays PairMACEKokkos::device_arrays() {
  const auto *k_list = static_cast<NeighListKokkos<MyDevice> *>(list);
  const auto neighbors = k_list->d_neighbors;
  *list_ = {list->inum, k_list->d_numneigh.data(), neighbors.data(), nullptr, static_cast<std::int64_t>(neighbors.stride(0)), static_cast<std::int64_t>(neighbors.stride(1)), NEIGHMASK};
  const bool messages = comm->style == Comm::BRICK && !lmp->kokkos->forward_pair_comm_classic && !lmp->kokkos->reverse_pair_comm_classic;
  return {list_.get(), atomKK->k_x.view<MyDevice>().data(), atomKK->k_f.view<MyDevice>().data(), messages};
}

int PairMACEKokkos::pack_forward_comm_kokkos(int n, DAT::tdual_int_1d atoms, DAT::tdual_xfloat_1d &buffer, int, int *) {
  return exchange().pack_resident(n, atoms.view<MyDevice>().data(), 0, buffer.view<MyDevice>().data());
}
void PairMACEKokkos::unpack_forward_comm_kokkos(int n, int first, DAT::tdual_xfloat_1d &buffer) {
  exchange().unpack_resident(n, first, buffer.view<MyDevice>().data());
}
int PairMACEKokkos::pack_reverse_comm_kokkos(int n, int first, DAT::tdual_xfloat_1d &buffer) {
  return exchange().pack_resident(n, nullptr, first, buffer.view<MyDevice>().data());
}
void PairMACEKokkos::unpack_reverse_comm_kokkos(int n, DAT::tdual_int_1d atoms, DAT::tdual_xfloat_1d &buffer) {
  exchange().add_resident(n, atoms.view<MyDevice>().data(), buffer.view<MyDevice>().data());
}
