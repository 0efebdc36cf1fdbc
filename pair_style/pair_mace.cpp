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

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/error.hpp"
#include "kernels/kokkos.hpp"
#include "lammps_exchange.h"
#include "lammps_graph.h"
#include "potentials/buffer.hpp"
#include "potentials/dispersion.hpp"
#include "potentials/nearest.hpp"
#include "potentials/potential.hpp"

using namespace LAMMPS_NS;
using namespace macekit;

namespace {

// A potential as pair_coeff has set it up.
struct Member {
  Potential potential;
  int head;
  std::vector<int> species_of_type;  // [ntypes + 1], -1 for NULL
  std::unique_ptr<Evaluator> evaluator;
  LammpsExchange exchange;
  std::unique_ptr<Dispersion> dispersion;
  double r_max() const { return potential.hyperparameters().r_max; }
};

}  // namespace

struct PairMACE::Implementation {
  Precision precision = Precision::float64;
  Radial radial = Radial::table;
  Backend backend = Backend::simd;
  std::string head;
  std::vector<std::string> committee;  // files
  Inputs inputs;
  std::vector<Member> members;  // the first drives the atoms; the others are the committee
  LammpsExchange *exchange = nullptr;  // of the member that runs
  LammpsGraph graph;

  // Of the member that ran last; forces and virials of rows are on the host or, where LAMMPS's are, on the device.
  Evaluation evaluation;
  std::vector<double> row_force, row_virial;
  double virial[9];

  struct Device {
    DeviceArrays arrays{};
    NeighborList list;
    Buffer<int> count{Backend::portable}, entries{Backend::portable};
    Buffer<std::int64_t> start{Backend::portable};
    Buffer<double> x{Backend::portable}, row_force{Backend::portable}, row_virial{Backend::portable};
  };
  std::unique_ptr<Device> device;
  bool forces_on_device() const { return device && device->arrays.f; }
  std::vector<double> host_forces() const { return forces_on_device() ? device->row_force.to_host() : row_force; }

  std::vector<double> deviation, member_forces, uncertainty;

  DispersionResult dispersion;
  double ghost_cutoff() const {
    double cutoff = 0;
    for (const Member &member : members)
      if (member.dispersion) cutoff = std::max(cutoff, member.dispersion->cutoff());
    return cutoff;
  }
};

namespace {

// Plain `lmp` runs do not start Kokkos; the kernels need it. What LAMMPS has started stays LAMMPS's.
void start_kokkos_once(int num_threads) {
  if (kokkos_runs()) return;
  start_kokkos(std::max(1, num_threads));
  std::atexit(stop_kokkos);
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
  try {
    start_kokkos_once(comm->nthreads);
  } catch (const std::exception &e) {
    error->all(FLERR, "pair_style mace: {}", e.what());
  }
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
  impl_->backend = backend_of("auto");
  if (allocated)
    for (int i = 1; i <= atom->ntypes; ++i)
      for (int j = i; j <= atom->ntypes; ++j) setflag[i][j] = 0;
  const std::vector<std::string> keywords{"precision", "head", "radial", "input", "committee", "device"}, precisions{"float64", "float32"}, radials{"table", "network"};
  for (int k = 0; k < narg;) {
    const std::string keyword = arg[k++];
    const int left = narg - k;
    if (std::find(keywords.begin(), keywords.end(), keyword) == keywords.end())
      fail_together("unknown keyword " + keyword + "; did you mean " + nearest(keyword, keywords) + "?");
    if (keyword == "input") {
      if (left < 2) fail_together("keyword input needs a name and a value: input total_charge 0.");
      impl_->inputs[arg[k]] = {utils::numeric(FLERR, arg[k + 1], false, lmp)};
      k += 2;
      continue;
    }
    if (left < 1) fail_together("keyword " + keyword + " needs a value.");
    const std::string value = arg[k++];
    if (keyword == "committee") {
      const int count = utils::is_integer(value) ? utils::inumeric(FLERR, value, false, lmp) : 0;
      if (count < 1 || count > narg - k) fail_together("keyword committee needs the number of further potentials and as many files: committee 2 b.mace c.mace.");
      impl_->committee.assign(arg + k, arg + k + count);
      k += count;
    } else if (keyword == "head") impl_->head = value;
    else if (keyword == "radial") {
      if (std::find(radials.begin(), radials.end(), value) == radials.end()) fail_together("unknown radial " + value + "; did you mean " + nearest(value, radials) + "?");
      impl_->radial = radial_of(value);
    } else if (keyword == "device") {
      try {
        impl_->backend = backend_of(value);
      } catch (const std::exception &e) {
        fail_together(e.what());
      }
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
  const std::vector<std::string> elements(arg + 3, arg + narg);
  std::vector<std::string> files{arg[2]};
  files.insert(files.end(), impl_->committee.begin(), impl_->committee.end());
  impl_->members.clear();
  try {
    for (std::string &file : files) {
      std::string found = utils::get_potential_file_path(file);
      if (found.empty()) found = utils::get_potential_file_path(file + ".mace");  // by its name, as elsewhere in macekit
      if (!found.empty()) file = found;
      const Potential potential = Potential::load(file);
      Member member{potential, potential.head_of(impl_->head), std::vector<int>(atom->ntypes + 1, -1), nullptr, {}, Dispersion::of(potential)};
      for (int type = 1; type <= atom->ntypes; ++type) {
        if (elements[type - 1] == "NULL") continue;
        try {
          member.species_of_type[type] = potential.species_of(atomic_number_of(elements[type - 1]));
        } catch (const InputError &e) {
          throw InputError((files.size() > 1 ? file + ": " : "") + "atom type " + std::to_string(type) + ": " + e.what() + " Use NULL for types without this potential.");
        }
      }
      check_inputs(potential.hyperparameters(), impl_->inputs);
      member.evaluator = make_evaluator(potential, impl_->precision, impl_->backend, impl_->radial);
      impl_->members.push_back(std::move(member));
    }
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
      if (elements[i - 1] != "NULL" && elements[j - 1] != "NULL") setflag[i][j] = 1, ++set;
  if (set == 0) fail_together("pair_coeff maps no atom type to an element; at least one type must not be NULL.");

  // Buffers are sized by Comm::init, so the widest message is announced here: features, or forces and virials.
  comm_forward = 0;
  for (Member &member : impl_->members) {
    member.exchange.attach(this, comm, member.evaluator->exchange_columns(), impl_->precision == Precision::float32);
    comm_forward = std::max({comm_forward, member.exchange.widest(), member.dispersion ? 1 : 0});
  }
  comm_reverse = comm_reverse_off = std::max(comm_forward, LammpsExchange::force_columns);

  if (comm->me == 0) {
    std::string map;
    for (int type = 1; type <= atom->ntypes; ++type) map += " " + std::to_string(type) + "=" + elements[type - 1];
    for (std::size_t k = 0; k < files.size(); ++k) {
      const auto &hp = impl_->members[k].potential.hyperparameters();
      utils::logmesg(lmp, "pair_style mace: {}{}: {}, {} layers, {} channels, L = {}, cut-off {} A, {}; types{}\n", k > 0 ? "committee: " : "", files[k], hp.model,
                     hp.num_interactions, hp.num_channels, hp.max_L, hp.r_max, impl_->precision == Precision::float32 ? "float32" : "float64", map);
      if (hp.has_dispersion())
        utils::logmesg(lmp, "pair_style mace: {}: {} dispersion of {} is part of it, cut-off {:.4g} A\n", files[k], hp.dispersion.method, hp.dispersion.functional, hp.dispersion.cutoff);
    }
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
  // Dispersion finds its neighbours among owned atoms and ghosts; LAMMPS's list, which would be long, ends at the network's cut-off.
  if (impl_->ghost_cutoff() > 0) {
    if (comm->mode != Comm::SINGLE) fail_together("comm_modify mode multi gives no ghosts for the dispersion of this potential; use comm_modify mode single.");
    comm->cutghostuser = std::max(comm->cutghostuser, impl_->ghost_cutoff() + neighbor->skin);
  }
}

double PairMACE::init_one(int, int) {
  double r_max = 0;
  for (const Member &member : impl_->members) r_max = std::max(r_max, member.r_max());
  return r_max;
}

bool PairMACE::on_device() const { return impl_->backend == Backend::portable; }
const LammpsExchange &PairMACE::exchange() const { return *impl_->exchange; }

PairMACE::DeviceArrays PairMACE::device_arrays() {
  Implementation::Device &d = *impl_->device;
  const LammpsGraph &graph = impl_->graph;
  const std::vector<double> x = graph.positions(atom);
  d.x.copy_in(x.data(), x.size());
  if (neighbor->ago == 0 || d.list.num_nodes != graph.num_nodes() || rows_changed_) {
    std::vector<int> count, entries;
    std::vector<std::int64_t> start;
    graph.list_rows(atom, list, count, entries, start);
    d.count.copy_in(count.data(), count.size()), d.entries.copy_in(entries.data(), entries.size()), d.start.copy_in(start.data(), start.size());
    d.list = {graph.num_nodes(), d.count.data(), d.entries.data(), d.start.data()};
  }
  return {&d.list, d.x.data(), nullptr, false};
}

// Adds the dispersion of the member that has just run.
void PairMACE::add_dispersion(int number) {
  Implementation &s = *impl_;
  Member &member = s.members[number];
  if (s.forces_on_device())
    throw InputError("the dispersion of this potential is computed on CPUs, so mace/kk cannot run on a GPU with it; use pair_style mace device gpu.");
  const std::vector<double> x = s.graph.positions(atom);
  s.exchange->use_rows(s.graph.row_of_atom(), false);
  member.dispersion->compute(s.graph.num_nodes(), s.graph.num_rows(), x.data(), s.graph.species(), *s.exchange, s.dispersion);
  for (int row = 0; row < s.graph.num_nodes(); ++row) {
    s.evaluation.node_energy[row] += s.dispersion.node_energy[row], s.evaluation.energy[0] += s.dispersion.node_energy[row];
    for (int k = 0; k < 3; ++k) s.row_force[3L * row + k] += s.dispersion.forces[3L * row + k];
    for (int k = 0; k < 9; ++k) {
      s.virial[k] += s.dispersion.atom_virial[9L * row + k];
      if (vflag_atom) s.row_virial[9L * row + k] += s.dispersion.atom_virial[9L * row + k];
    }
  }
}

// Energies, and forces and virials of rows, of one member.
void PairMACE::evaluate(int number) {
  Implementation &s = *impl_;
  Member &member = s.members[number];
  s.exchange = &member.exchange;
  rows_changed_ = s.graph.find_rows(atom, member.species_of_type) || rows_changed_;
  const std::size_t num_rows = s.graph.num_rows();
  if (!on_device()) {
    s.graph.find_edges(atom, list, member.head, member.r_max());
    Graph graph = s.graph.view();
    graph.inputs = &s.inputs;
    s.exchange->use_rows(s.graph.row_of_atom(), false);
    member.evaluator->compute(graph, *s.exchange, {true, false, number == 0 && wants_uncertainty_}, s.evaluation);
    std::fill_n(s.virial, 9, 0.0);
    s.row_force.assign(3 * num_rows, 0.0), s.row_virial.assign(vflag_atom ? 9 * num_rows : 0, 0.0);
    forces_from_edge_gradients(graph, s.evaluation.edge_gradient.data(), s.row_force.data(), s.virial, vflag_atom ? s.row_virial.data() : nullptr);
    if (member.dispersion) add_dispersion(number);
    return;
  }
  if (number == 0 && wants_uncertainty_) throw InputError("uncertainty is computed on CPUs; use device cpu.");
  if (!s.device) s.device = std::make_unique<Implementation::Device>();
  Implementation::Device &d = *s.device;
  if (number == 0) d.arrays = device_arrays(), rows_changed_ = false;
  s.exchange->use_rows(s.graph.row_of_atom(), d.arrays.messages);
  d.row_force.resize(3 * num_rows), d.row_force.zero();
  d.row_virial.resize(vflag_atom ? 9 * num_rows : 0), d.row_virial.zero();
  ResidentForces forces{d.row_force.data(), vflag_atom ? d.row_virial.data() : nullptr, vflag_global != 0, {}};
  member.evaluator->compute({*d.arrays.list, s.graph.num_rows(), d.arrays.x, s.graph.species(), member.head, &s.inputs}, *s.exchange, s.evaluation, forces);
  std::copy_n(forces.virial, 9, s.virial);
  if (!s.forces_on_device()) s.row_force = d.row_force.to_host(), s.row_virial = d.row_virial.to_host();
  if (member.dispersion) add_dispersion(number);
}

// Adds the forces and virials on ghosts to those of their owners.
void PairMACE::send_forces_home() {
  Implementation &s = *impl_;
  const auto send = [&](std::vector<double> &rows, Buffer<double> *on_device, int columns) {
    if (on_device && s.exchange->resident()) return s.exchange->reverse(on_device->data(), columns);
    if (on_device) rows = on_device->to_host();
    s.exchange->reverse(rows.data(), columns);
    if (on_device) on_device->copy_in(rows.data(), rows.size());
  };
  send(s.row_force, s.forces_on_device() ? &s.device->row_force : nullptr, 3);
  if (vflag_atom) send(s.row_virial, s.forces_on_device() ? &s.device->row_virial : nullptr, 9);
}

void PairMACE::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  try {
    evaluate(0);
    // With newton off LAMMPS does not send the forces on ghosts home.
    if (!force->newton_pair) send_forces_home();
    add_forces();
    if (wants_uncertainty_) {
      impl_->uncertainty.assign(atom->nmax, 0.0);
      for (int row = 0; row < impl_->graph.num_nodes(); ++row) impl_->uncertainty[impl_->graph.atom_of_row()[row]] = impl_->evaluation.node_uncertainty[row];
    }
    if (wants_deviation_) compute_deviation();
  } catch (const std::exception &e) {
    error->one(FLERR, "pair_style mace: step {}: {}", update->ntimestep, e.what());
  }
}

void PairMACE::add_forces() {
  Implementation &s = *impl_;
  const int num_nodes = s.graph.num_nodes(), num_targets = force->newton_pair ? s.graph.num_rows() : num_nodes;
  const std::vector<int> &atom_of_row = s.graph.atom_of_row();
  static const int voigt[6] = {0, 4, 8, 1, 2, 5};  // LAMMPS: xx yy zz xy xz yz
  if (s.forces_on_device()) {
    portable::add(s.device->arrays.f, s.device->row_force.data(), 3L * num_targets);
    if (vflag_atom) s.row_virial = s.device->row_virial.to_host();
  } else {
    for (int row = 0; row < num_targets; ++row)
      for (int k = 0; k < 3; ++k) atom->f[atom_of_row[row]][k] += s.row_force[3L * row + k];
  }
  if (vflag_atom)
    for (int row = 0; row < num_targets; ++row)
      for (int k = 0; k < 6; ++k) vatom[atom_of_row[row]][k] += s.row_virial[9L * row + voigt[k]];
  if (eflag_global) eng_vdwl += s.evaluation.energy[0];
  if (eflag_atom)
    for (int row = 0; row < num_nodes; ++row) eatom[atom_of_row[row]] += s.evaluation.node_energy[row];
  if (vflag_global)
    for (int k = 0; k < 6; ++k) virial[k] += s.virial[voigt[k]];
}

// sqrt(mean over members of |F - mean F|^2) of each atom. Forces go home by the members' own communication: LAMMPS's carries
// those of the first member only.
void PairMACE::compute_deviation() {
  Implementation &s = *impl_;
  const int num_members = static_cast<int>(s.members.size());
  const std::size_t num_nodes = s.graph.num_nodes();  // the same for all members, as are the rows
  s.member_forces.clear();
  for (int k = 0; k < num_members; ++k) {
    if (k > 0) evaluate(k);
    if (k > 0 || force->newton_pair) send_forces_home();
    const std::vector<double> forces = s.host_forces();
    s.member_forces.insert(s.member_forces.end(), forces.begin(), forces.begin() + 3 * num_nodes);
  }
  const std::vector<int> &atom_of_row = s.graph.atom_of_row();
  s.deviation.assign(atom->nmax, 0.0);
  for (std::size_t row = 0; row < num_nodes; ++row) {
    double square = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const auto component = [&](int k) { return s.member_forces[3 * (k * num_nodes + row) + axis]; };
      double mean = 0;
      for (int k = 0; k < num_members; ++k) mean += component(k) / num_members;
      for (int k = 0; k < num_members; ++k) square += (component(k) - mean) * (component(k) - mean) / num_members;
    }
    s.deviation[atom_of_row[row]] = std::sqrt(square);
  }
}

// fix pair asks for `deviation` or `uncertainty` of each atom, and sets their flags before the steps in which it wants them.
void *PairMACE::extract(const char *name, int &dim) {
  dim = 0;
  if (std::strcmp(name, "uncertainty_flag") == 0) return &wants_uncertainty_;
  return std::strcmp(name, "deviation_flag") == 0 ? &wants_deviation_ : nullptr;
}

void *PairMACE::extract_peratom(const char *name, int &num_columns) {
  num_columns = 0;
  if (std::strcmp(name, "uncertainty") == 0) {
    if (!impl_->members.empty() && !impl_->members[0].potential.hyperparameters().uncertainty)
      fail_together("the potential holds no uncertainty; add it by `macekit uncertainty POTENTIAL TRAINING_SET -o NEW`.");
    return impl_->uncertainty.data();
  }
  if (std::strcmp(name, "deviation") != 0) return nullptr;
  if (impl_->committee.empty()) fail_together("deviation needs a committee: write `pair_style mace committee N FILE1 .. FILEN`.");
  return impl_->deviation.data();
}

int PairMACE::pack_forward_comm(int n, int *atoms, double *buffer, int, int *) { return impl_->exchange->pack_forward(n, atoms, buffer); }
void PairMACE::unpack_forward_comm(int n, int first, double *buffer) { impl_->exchange->unpack_forward(n, first, buffer); }
int PairMACE::pack_reverse_comm(int n, int first, double *buffer) { return impl_->exchange->pack_reverse(n, first, buffer); }
void PairMACE::unpack_reverse_comm(int n, int *atoms, double *buffer) { impl_->exchange->unpack_reverse(n, atoms, buffer); }

double PairMACE::memory_usage() {
  double bytes = 0;
  for (const Member &member : impl_->members) bytes += static_cast<double>(member.evaluator->memory());
  return bytes;
}
