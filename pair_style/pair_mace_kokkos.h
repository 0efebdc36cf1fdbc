// SPDX-License-Identifier: GPL-2.0-only
// mace/kk: the same adaptor under LAMMPS's Kokkos package. It declares what it reads and changes, so that LAMMPS copies only
// that between device and host; the kernels themselves are threaded through Kokkos in either style.
#ifndef LMP_PAIR_MACE_KOKKOS_H
#define LMP_PAIR_MACE_KOKKOS_H

#include "pair_mace.h"

namespace LAMMPS_NS {

class PairMACEKokkos : public PairMACE {
 public:
  explicit PairMACEKokkos(class LAMMPS *);
  void compute(int, int) override;
};

}  // namespace LAMMPS_NS

#endif
