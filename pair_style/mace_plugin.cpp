// SPDX-License-Identifier: GPL-2.0-only
// Entry point of the plugin: registers mace and, where LAMMPS has its Kokkos package, mace/kk.
#include "lammpsplugin.h"

#include "comm.h"
#include "error.h"
#include "lammps.h"
#include "version.h"

#include <cstring>

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

extern "C" void lammpsplugin_init(void *lmp, void *handle, void *regfunc) {
  auto *lammps = static_cast<LAMMPS *>(lmp);
  if (std::strcmp(lammps->version, LAMMPS_VERSION) != 0)
    lammps->error->all(FLERR, "maceplugin.so was built for LAMMPS {}, this is LAMMPS {}: rebuild macekit with MACEKIT_LAMMPS_SOURCE set to this version's source.",
                       LAMMPS_VERSION, lammps->version);
  const auto register_plugin = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
  const auto add = [&](const char *name, lammpsplugin_factory1 *create) {
    lammpsplugin_t plugin{};
    plugin.version = LAMMPS_VERSION;
    plugin.style = "pair";
    plugin.name = name;
    plugin.info = "MACE interatomic potentials of macekit";
    plugin.author = "the macekit authors";
    plugin.creator.v1 = create;
    plugin.handle = handle;
    register_plugin(&plugin, lmp);
  };
  add("mace", reinterpret_cast<lammpsplugin_factory1 *>(&create_mace));
#ifdef LMP_KOKKOS
  for (const char *name : {"mace/kk", "mace/kk/host", "mace/kk/device"}) add(name, reinterpret_cast<lammpsplugin_factory1 *>(&create_mace_kokkos));
#endif
}
