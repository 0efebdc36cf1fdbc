// SPDX-License-Identifier: GPL-2.0-only
// mace/kk: the same adaptor under LAMMPS's Kokkos package. It declares what it reads and changes, so that LAMMPS copies only
// that between device and host. On a GPU (or with `device portable`, for tests) atoms, neighbour list, forces and, where LAMMPS
// communicates from the device, messages stay in LAMMPS's own arrays there.
#ifndef LMP_PAIR_MACE_KOKKOS_H
#define LMP_PAIR_MACE_KOKKOS_H

#include "kokkos_base.h"
#include "pair_mace.h"

namespace LAMMPS_NS {

class PairMACEKokkos : public PairMACE, public KokkosBase {
 public:
  explicit PairMACEKokkos(class LAMMPS *);
  ~PairMACEKokkos() override;
  void settings(int, char **) override;
  void init_style() override;
  void compute(int, int) override;
  int pack_forward_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_xfloat_1d &, int, int *) override;
  void unpack_forward_comm_kokkos(int, int, DAT::tdual_xfloat_1d &) override;
  int pack_reverse_comm_kokkos(int, int, DAT::tdual_xfloat_1d &) override;
  void unpack_reverse_comm_kokkos(int, DAT::tdual_int_1d, DAT::tdual_xfloat_1d &) override;

 protected:
  DeviceArrays device_arrays() override;

 private:
  std::unique_ptr<macekit::NeighborList> list_;
};

}  // namespace LAMMPS_NS

#endif
