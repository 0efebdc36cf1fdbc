// SPDX-License-Identifier: GPL-2.0-only
#include "pair_mace_kokkos.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "kokkos.h"

using namespace LAMMPS_NS;

PairMACEKokkos::PairMACEKokkos(LAMMPS *lmp) : PairMACE(lmp) {
  kokkosable = 1;
  atomKK = (AtomKokkos *) atom;
  execution_space = Host;
  datamask_read = X_MASK | F_MASK | TYPE_MASK;
  datamask_modify = F_MASK | ENERGY_MASK | VIRIAL_MASK;
}

void PairMACEKokkos::compute(int eflag, int vflag) {
  atomKK->sync(Host, datamask_read);
  PairMACE::compute(eflag, vflag);
  atomKK->modified(Host, F_MASK);
}
