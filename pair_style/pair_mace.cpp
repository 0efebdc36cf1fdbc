// SPDX-License-Identifier: GPL-2.0-only
#include "pair_mace.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <Kokkos_Core.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/error.hpp"
#include "lammps_exchange.h"
#include "lammps_graph.h"
#include "potentials/nearest.hpp"
#include "potentials/potential.hpp"

using namespace LAMMPS_NS;
using namespace macekit;

struct PairMACE::Implementation {
  Precision precision = Precision::float64;
  Radial radial = Radial::table;
  std::string head, path;
  Inputs inputs;
  std::unique_ptr<Potential> potential;
  std::unique_ptr<Evaluator> evaluator;
  std::vector<int> species_of_type;  // [ntypes + 1], -1 for NULL
  int head_index = 0;
  LammpsGraph graph;
  LammpsExchange exchange;
  Evaluation evaluation;
  std::vector<double> row_force, row_virial;
};

namespace {

// Plain `lmp` runs do not start Kokkos; the kernels need it. What LAMMPS has started stays LAMMPS's.
void start_kokkos(int num_threads) {
  if (Kokkos::is_initialized() || Kokkos::is_finalized()) return;
  Kokkos::initialize(Kokkos::InitializationSettings().set_num_threads(std::max(1, num_threads)).set_disable_warnings(true));
  std::atexit([] {
    if (Kokkos::is_initialized() && !Kokkos::is_finalized()) Kokkos::finalize();
  });
}

// LAMMPS runs one structure, so only inputs of structures make sense.
void check_inputs(const Hyperparameters &hp, const Inputs &given) {
  for (const auto &[name, value] : given)
    if (std::none_of(hp.embeddings.begin(), hp.embeddings.end(), [&](const InputEmbedding &e) { return e.name == name; }))
      throw InputError("the potential takes no input " + name + "; remove `input " + name + "`.");
  for (const InputEmbedding &e : hp.embeddings) {
    if (e.per != "graph" || e.in_dim > 1) throw InputError("the potential needs a value of " + e.name + " for each atom, which LAMMPS cannot give it.");
    if (!given.count(e.name)) throw InputError("the potential needs the input " + e.name + ": write `pair_style mace input " + e.name + " VALUE`.");
  }
}

}  // namespace

PairMACE::PairMACE(LAMMPS *lmp) : Pair(lmp), impl_(new Implementation) {
  manybody_flag = 1;
  one_coeff = 1;
  restartinfo = 0;
  single_enable = 0;
  respa_enable = 0;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
  start_kokkos(comm->nthreads);
}

PairMACE::~PairMACE() {
  if (copymode) return;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

// Every rank gets here with the same sentence, or rank by rank with its own; the lowest rank's is printed.
void PairMACE::fail_together(const std::string &sentence) { error->all(FLERR, "pair_style mace: {}", sentence); }

void PairMACE::settings(int narg, char **arg) {
  impl_ = std::make_unique<Implementation>();
  if (allocated)
    for (int i = 1; i <= atom->ntypes; ++i)
      for (int j = i; j <= atom->ntypes; ++j) setflag[i][j] = 0;
  const std::vector<std::string> keywords{"precision", "head", "radial", "input"}, precisions{"float64", "float32"}, radials{"table", "network"};
  for (int k = 0; k < narg; k += 2) {
    const std::string keyword = arg[k];
    if (keyword == "input") {
      if (k + 2 >= narg) fail_together("keyword input needs a name and a value: input total_charge 0.");
      impl_->inputs[arg[k + 1]] = {utils::numeric(FLERR, arg[k + 2], false, lmp)};
      ++k;
      continue;
    }
    if (std::find(keywords.begin(), keywords.end(), keyword) == keywords.end())
      fail_together("unknown keyword " + keyword + "; did you mean " + nearest(keyword, keywords) + "?");
    if (k + 1 == narg) fail_together("keyword " + keyword + " needs a value.");
    const std::string value = arg[k + 1];
    if (keyword == "head") impl_->head = value;
    else if (keyword == "radial") {
      if (std::find(radials.begin(), radials.end(), value) == radials.end()) fail_together("unknown radial " + value + "; did you mean " + nearest(value, radials) + "?");
      impl_->radial = radial_of(value);
    }
    else if (value == "float64") impl_->precision = Precision::float64;
    else if (value == "float32") impl_->precision = Precision::float32;
    else fail_together("unknown precision " + value + "; did you mean " + nearest(value, precisions) + "?");
  }
}

void PairMACE::allocate() {
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 1; i < n; ++i)
    for (int j = 1; j < n; ++j) setflag[i][j] = 0, cutsq[i][j] = 0;
}

void PairMACE::coeff(int narg, char **arg) {
  if (!allocated) allocate();
  if (narg < 3 || std::strcmp(arg[0], "*") != 0 || std::strcmp(arg[1], "*") != 0)
    fail_together("pair_coeff must read: pair_coeff * * FILE.mace ELEMENT1 ELEMENT2 .. (one element or NULL for each atom type).");
  if (narg != 3 + atom->ntypes)
    fail_together("pair_coeff names " + std::to_string(narg - 3) + " elements for " + std::to_string(atom->ntypes) +
                  " atom types; give one element or NULL for each type.");

  std::string failure;
  std::vector<std::string> elements;
  try {
    const std::string found = utils::get_potential_file_path(arg[2]);
    impl_->path = found.empty() ? arg[2] : found;
    impl_->potential = std::make_unique<Potential>(Potential::load(impl_->path));
    impl_->head_index = impl_->potential->head_of(impl_->head);
    impl_->species_of_type.assign(atom->ntypes + 1, -1);
    for (int type = 1; type <= atom->ntypes; ++type) {
      const std::string element = arg[2 + type];
      elements.push_back(element);
      if (element == "NULL") continue;
      try {
        impl_->species_of_type[type] = impl_->potential->species_of(atomic_number_of(element));
      } catch (const InputError &e) {
        throw InputError("atom type " + std::to_string(type) + ": " + e.what() + " Use NULL for types without this potential.");
      }
    }
    check_inputs(impl_->potential->hyperparameters(), impl_->inputs);
    impl_->evaluator = make_evaluator(*impl_->potential, impl_->precision, Backend::simd, impl_->radial);
  } catch (const std::exception &e) {
    failure = e.what();
  }
  // A file may be unreadable on one node only: all ranks stop together, with the sentence of the lowest rank that failed.
  int first = failure.empty() ? comm->nprocs : comm->me, lowest = comm->nprocs;
  MPI_Allreduce(&first, &lowest, 1, MPI_INT, MPI_MIN, world);
  if (lowest < comm->nprocs) {
    int size = static_cast<int>(failure.size());
    MPI_Bcast(&size, 1, MPI_INT, lowest, world);
    failure.resize(size);
    MPI_Bcast(failure.data(), size, MPI_CHAR, lowest, world);
    fail_together(failure);
  }

  int set = 0;
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j)
      if (impl_->species_of_type[i] >= 0 && impl_->species_of_type[j] >= 0) setflag[i][j] = 1, ++set;
  if (set == 0) fail_together("pair_coeff maps no atom type to an element; at least one type must not be NULL.");

  // Buffers are sized by Comm::init, so the widest message is announced here: features, or forces and virials.
  impl_->exchange.attach(this, comm, impl_->evaluator->exchange_columns(), impl_->precision == Precision::float32);
  comm_forward = impl_->exchange.widest();
  comm_reverse = comm_reverse_off = std::max(comm_forward, LammpsExchange::force_columns);

  if (comm->me == 0) {
    const auto &hp = impl_->potential->hyperparameters();
    std::string map;
    for (int type = 1; type <= atom->ntypes; ++type) map += " " + std::to_string(type) + "=" + elements[type - 1];
    utils::logmesg(lmp, "pair_style mace: {}: {}, {} layers, {} channels, L = {}, cut-off {} A, {}; types{}\n", impl_->path, hp.model, hp.num_interactions,
                   hp.num_channels, hp.max_L, hp.r_max, impl_->precision == Precision::float32 ? "float32" : "float64", map);
  }
}

void PairMACE::init_style() {
  if (std::strcmp(update->unit_style, "metal") != 0)
    fail_together(std::string("units are ") + update->unit_style + ", the potential needs Angstrom and eV: use units metal.");
  if (offset_flag) fail_together("pair_modify shift is not possible with this potential; remove it.");
  if (tail_flag) fail_together("pair_modify tail is not possible with this potential; remove it.");
  if (utils::strmatch(update->integrate_style, "^respa"))
    fail_together("run_style respa cannot split this potential into near and far parts; use run_style verlet.");
  // Pairs whose special_bonds weight is 0 never enter the neighbour list, so bonded atoms would not see each other.
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k <= 3; ++k)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        fail_together("special_bonds removes bonded neighbours, which this potential must see: use special_bonds lj/coul 1.0 1.0 1.0.");
  // pair_style hybrid asked for our message sizes before pair_coeff had told us; Comm::init, which follows, asks hybrid.
  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
  force->pair->comm_reverse_off = std::max(force->pair->comm_reverse_off, comm_reverse_off);
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairMACE::init_one(int, int) { return impl_->potential->hyperparameters().r_max; }

void PairMACE::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  Implementation &s = *impl_;
  const double r_max = s.potential->hyperparameters().r_max;
  s.graph.build(atom, list, s.species_of_type, s.head_index, r_max);
  Graph graph = s.graph.view();
  graph.inputs = &s.inputs;
  s.exchange.use_rows(s.graph.row_of_atom(), graph.num_nodes);
  try {
    s.evaluator->compute(graph, s.exchange, {true, false}, s.evaluation);
  } catch (const std::exception &e) {
    error->one(FLERR, "pair_style mace: step {}: {}", update->ntimestep, e.what());
  }

  s.row_force.assign(3 * static_cast<std::size_t>(graph.num_rows), 0.0);
  double total_virial[9] = {};
  if (vflag_atom) s.row_virial.assign(9 * static_cast<std::size_t>(graph.num_rows), 0.0);
  forces_from_edge_gradients(graph, s.evaluation.edge_gradient.data(), s.row_force.data(), vflag_global ? total_virial : nullptr,
                             vflag_atom ? s.row_virial.data() : nullptr);
  // With newton off LAMMPS does not send the forces on ghosts home.
  if (!force->newton_pair) s.exchange.reverse_forces(s.row_force, vflag_atom ? &s.row_virial : nullptr);

  const int num_targets = force->newton_pair ? graph.num_rows : graph.num_nodes;
  const std::vector<int> &atom_of_row = s.graph.atom_of_row();
  static const int voigt[6] = {0, 4, 8, 1, 2, 5};  // LAMMPS: xx yy zz xy xz yz
  for (int row = 0; row < num_targets; ++row) {
    const int i = atom_of_row[row];
    for (int k = 0; k < 3; ++k) atom->f[i][k] += s.row_force[3L * row + k];
    if (vflag_atom)
      for (int k = 0; k < 6; ++k) vatom[i][k] += s.row_virial[9L * row + voigt[k]];
  }
  if (eflag_global) eng_vdwl += s.evaluation.energy[0];
  if (eflag_atom)
    for (int row = 0; row < graph.num_nodes; ++row) eatom[atom_of_row[row]] += s.evaluation.node_energy[row];
  if (vflag_global)
    for (int k = 0; k < 6; ++k) virial[k] += total_virial[voigt[k]];
}

int PairMACE::pack_forward_comm(int n, int *atoms, double *buffer, int, int *) { return impl_->exchange.pack_forward(n, atoms, buffer); }
void PairMACE::unpack_forward_comm(int n, int first, double *buffer) { impl_->exchange.unpack_forward(n, first, buffer); }
int PairMACE::pack_reverse_comm(int n, int first, double *buffer) { return impl_->exchange.pack_reverse(n, first, buffer); }
void PairMACE::unpack_reverse_comm(int n, int *atoms, double *buffer) { impl_->exchange.unpack_reverse(n, atoms, buffer); }

double PairMACE::memory_usage() { return impl_->evaluator ? static_cast<double>(impl_->evaluator->memory()) : 0.0; }
