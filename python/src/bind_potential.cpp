// SPDX-License-Identifier: MIT
// Arrays in, arrays out; no formula.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>

#include "kernels/error.hpp"
#include "kernels/neighbors.hpp"
#include "potentials/differentiable.hpp"
#include "potentials/dispersion.hpp"
#include "potentials/potential.hpp"

namespace py = pybind11;
using namespace macekit;

namespace {

using Reals = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

py::array to_numpy(const Tensor& tensor) {
  const std::vector<py::ssize_t> shape(tensor.shape.begin(), tensor.shape.end());
  if (!tensor.integer.empty()) {
    py::array_t<std::int64_t> array(shape);
    std::copy(tensor.integer.begin(), tensor.integer.end(), array.mutable_data());
    return array;
  }
  py::array_t<double> array(shape);
  std::copy(tensor.real.begin(), tensor.real.end(), array.mutable_data());
  return array;
}

Tensors from_numpy(const py::dict& arrays) {
  Tensors tensors;
  for (const auto& [key, value] : arrays) {
    const auto name = key.cast<std::string>();
    const auto array = value.cast<py::array>();
    Tensor tensor;
    tensor.shape.assign(array.shape(), array.shape() + array.ndim());
    if (array.dtype().kind() == 'i' || array.dtype().kind() == 'u') {
      const auto data = array.cast<Integers>();
      tensor.integer.assign(data.data(), data.data() + data.size());
    } else {
      require<InputError>(array.dtype().kind() == 'f', "tensor ", name, " must hold numbers.");
      const auto data = array.cast<Reals>();
      tensor.real.assign(data.data(), data.data() + data.size());
    }
    tensors[name] = std::move(tensor);
  }
  return tensors;
}

Precision precision_of(const std::string& name) {
  require<InputError>(name == "float64" || name == "float32", "precision '", name, "' is unknown; use float64 or float32.");
  return name == "float64" ? Precision::float64 : Precision::float32;
}

py::array_t<double> array(const std::vector<double>& values, std::vector<py::ssize_t> shape) {
  py::array_t<double> out(std::move(shape));
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

struct Structure {
  Integers numbers;
  Reals positions, cell;
  std::array<bool, 3> pbc;
};

// (numbers, positions, cell, pbc, head[, inputs]) of each structure -> one graph.
GraphData build_graph(const Potential& potential, const py::list& structures, std::vector<Structure>& list) {
  GraphData g;
  for (const auto& item : structures) {
    const auto tuple = item.cast<py::tuple>();
    require<ShapeError>(tuple.size() == 5 || tuple.size() == 6, "structure: expected (numbers, positions, cell, pbc, head) or the same with a dict of inputs");
    Structure s{tuple[0].cast<Integers>(), tuple[1].cast<Reals>(), tuple[2].cast<Reals>(), tuple[3].cast<std::array<bool, 3>>()};
    require<ShapeError>(s.positions.ndim() == 2 && s.positions.shape(1) == 3 && s.positions.shape(0) == s.numbers.size(), "positions: expected [", s.numbers.size(), ", 3]");
    require<ShapeError>(s.cell.size() == 9, "cell: expected [3, 3]");
    const int structure = g.num_graphs();
    g.head.push_back(potential.head_of(tuple[4].cast<std::string>()));
    for (py::ssize_t i = 0; i < s.numbers.size(); ++i) g.species.push_back(potential.species_of(static_cast<int>(s.numbers.data()[i]))), g.graph_of.push_back(structure);
    if (tuple.size() == 6)
      for (const auto& [name, value] : tuple[5].cast<py::dict>()) {
        const auto values = value.cast<Reals>();
        auto& all = g.inputs[name.cast<std::string>()];
        all.insert(all.end(), values.data(), values.data() + values.size());
      }
    list.push_back(std::move(s));
  }
  py::gil_scoped_release release;
  for (const Structure& s : list) {
    const int n = static_cast<int>(s.numbers.size()), before = static_cast<int>(g.first.size()) - 1, edges = g.first.back();
    const Neighbors neighbors = find_neighbors(n, s.positions.data(), s.cell.data(), s.pbc, potential.hyperparameters().r_max);
    for (int i = 1; i <= n; ++i) g.first.push_back(edges + neighbors.first[i]);
    for (int sender : neighbors.sender) g.sender.push_back(before + sender);
    g.vec.insert(g.vec.end(), neighbors.vec.begin(), neighbors.vec.end());
  }
  return g;
}

class PythonEvaluator {
 public:
  PythonEvaluator(const Potential& potential, const std::string& precision, const std::string& device, const std::string& radial)
      : potential_(potential), evaluator_(make_evaluator(potential, precision_of(precision), backend_of(device), radial_of(radial))), dispersion_(Dispersion::of(potential)) {}

  py::dict compute(const py::list& structures, bool forces, bool node_features, bool uncertainty) {
    std::vector<Structure> list;
    const GraphData data = build_graph(potential_, structures, list);
    const Graph graph = data.view();
    Evaluation result;
    const auto start = std::chrono::steady_clock::now();
    std::vector<double> force(3 * static_cast<std::size_t>(graph.num_nodes)), virial(9 * static_cast<std::size_t>(graph.num_graphs)), atom_virial(3 * force.size());
    {
      py::gil_scoped_release release;
      NoExchange exchange;
      evaluator_->compute(graph, exchange, {forces, node_features, uncertainty}, result);
      if (forces) forces_from_edge_gradients(graph, result.edge_gradient.data(), force.data(), virial.data(), atom_virial.data());
      if (dispersion_) add_dispersion(list, graph, result, force, virial, atom_virial);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const py::ssize_t N = graph.num_nodes, G = graph.num_graphs;
    py::dict out;
    out["energy"] = array(result.energy, {G});
    out["node_energy"] = array(result.node_energy, {N});
    if (forces) out["forces"] = array(force, {N, 3}), out["virial"] = array(virial, {G, 3, 3}), out["node_virial"] = array(atom_virial, {N, 3, 3});
    if (node_features) out["node_features"] = array(result.node_features, {N, N ? static_cast<py::ssize_t>(result.node_features.size()) / N : 0});
    if (uncertainty) out["uncertainty"] = array(result.uncertainty, {G}), out["node_uncertainty"] = array(result.node_uncertainty, {N});
    out["num_edges"] = graph.num_edges, out["seconds"] = seconds;
    return out;
  }
  py::array_t<double> intermediate(const std::string& name) const {
    const Intermediate a = evaluator_->intermediate(name);
    const py::ssize_t row = static_cast<py::ssize_t>(a.components) * a.channels;
    return array(a.values, {static_cast<py::ssize_t>(a.values.size()) / row, a.components, a.channels});
  }
  std::vector<int> invariant_columns() const { return evaluator_->invariant_columns(); }
  std::string describe() const { return evaluator_->describe(); }
  std::size_t memory() const { return evaluator_->memory(); }

 private:
  void add_dispersion(const std::vector<Structure>& list, const Graph& graph, Evaluation& result, std::vector<double>& force, std::vector<double>& virial,
                      std::vector<double>& atom_virial) {
    DispersionResult part;
    long before = 0;
    for (std::size_t g = 0; g < list.size(); ++g) {
      const Structure& s = list[g];
      const int n = static_cast<int>(s.numbers.size());
      const Images images = periodic_images(n, s.positions.data(), s.cell.data(), s.pbc, dispersion_->cutoff());
      std::vector<int> species(graph.species + before, graph.species + before + n);
      for (int owner : images.owner) species.push_back(species[owner]);
      ImageExchange exchange(n, images.owner);
      dispersion_->compute(n, static_cast<int>(species.size()), images.positions.data(), species.data(), exchange, part);
      for (int i = 0; i < n; ++i) {
        result.node_energy[before + i] += part.node_energy[i], result.energy[g] += part.node_energy[i];
        for (int k = 0; k < 3; ++k) force[3 * (before + i) + k] += part.forces[3L * i + k];
        for (int k = 0; k < 9; ++k) atom_virial[9 * (before + i) + k] += part.atom_virial[9L * i + k], virial[9 * g + k] += part.atom_virial[9L * i + k];
      }
      before += n;
    }
  }

  Potential potential_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<Dispersion> dispersion_;
};

}  // namespace

void bind_potential(py::module_& m) {
  py::class_<Potential>(m, "Potential")
      .def_static("load", &Potential::load, py::arg("path"))
      .def_static(
          "from_tensors",
          [](const std::string& hyperparameters, const py::dict& tensors, const std::string& metadata) {
            return Potential(hyperparameters_from_json(hyperparameters), from_numpy(tensors), metadata);
          },
          py::arg("hyperparameters"), py::arg("tensors"), py::arg("metadata") = "{}")
      .def("save", &Potential::save, py::arg("path"))
      .def("species_of", &Potential::species_of)
      .def("head_of", &Potential::head_of)
      .def_property_readonly("hyperparameters_json", [](const Potential& p) { return to_json(p.hyperparameters()); })
      .def_property_readonly("metadata_json", &Potential::metadata_json)
      .def_property_readonly("tensors", [](const Potential& p) {
        py::dict out;
        for (const auto& [name, tensor] : p.tensors()) out[py::str(name)] = to_numpy(tensor);
        return out;
      });
  py::class_<PythonEvaluator>(m, "Evaluator")
      .def(py::init<const Potential&, const std::string&, const std::string&, const std::string&>(), py::arg("potential"), py::arg("precision") = "float64",
           py::arg("device") = "auto", py::arg("radial") = "table")
      .def("compute", &PythonEvaluator::compute, py::arg("structures"), py::arg("forces") = true, py::arg("node_features") = false, py::arg("uncertainty") = false,
           "structures: list of (numbers [n], positions [n,3], cell [3,3], pbc (3 bools), head name[, inputs {name: values}]). Energies in eV with E0, forces in eV/A,\n"
           "virial = -dE/dstrain in eV. uncertainty: standard deviations in eV, of potentials that hold them. seconds: without neighbour lists.")
      .def("intermediate", &PythonEvaluator::intermediate, py::arg("name"), "An array of the last compute() by the name in describe(): [rows, components, padded channels].")
      .def_property_readonly("invariant_columns", &PythonEvaluator::invariant_columns, "columns of node_features with l = 0")
      .def("describe", &PythonEvaluator::describe)
      .def("memory", &PythonEvaluator::memory);
  m.def(
      "initial_tensors",
      [](const std::string& hyperparameters, const std::vector<double>& atomic_energies, std::uint64_t seed) {
        py::dict out;
        for (const auto& [name, tensor] : initial_tensors(hyperparameters_from_json(hyperparameters), atomic_energies, seed)) out[py::str(name)] = to_numpy(tensor);
        return out;
      },
      py::arg("hyperparameters"), py::arg("atomic_energies"), py::arg("seed"));
  m.def("default_hyperparameters", [] { return to_json(Hyperparameters()); });
  m.def("element_symbol", &element_symbol);
  m.def(
      "neighbors",
      [](const Reals& positions, const Reals& cell, const std::array<bool, 3>& pbc, double r_max) {
        require<ShapeError>(positions.ndim() == 2 && positions.shape(1) == 3 && cell.size() == 9, "neighbors: positions must be [n, 3] and cell [3, 3]");
        const Neighbors n = find_neighbors(static_cast<int>(positions.shape(0)), positions.data(), cell.data(), pbc, r_max);
        const auto edges = static_cast<py::ssize_t>(n.sender.size());
        py::array_t<int> receiver(edges), sender(edges), shift({edges, py::ssize_t(3)});
        for (std::size_t i = 0; i + 1 < n.first.size(); ++i) std::fill(receiver.mutable_data() + n.first[i], receiver.mutable_data() + n.first[i + 1], static_cast<int>(i));
        std::copy(n.sender.begin(), n.sender.end(), sender.mutable_data());
        for (py::ssize_t e = 0; e < edges; ++e) std::copy(n.shift[e].begin(), n.shift[e].end(), shift.mutable_data() + 3 * e);
        return py::make_tuple(receiver, sender, shift, array(n.vec, {edges, 3}));
      },
      py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("r_max"));
  m.def(
      "neighbor_counts",
      [](const Reals& positions, const Reals& cell, const std::array<bool, 3>& pbc, double r_max) {
        require<ShapeError>(positions.ndim() == 2 && positions.shape(1) == 3 && cell.size() == 9, "neighbor_counts: positions must be [n, 3] and cell [3, 3]");
        const Neighbors n = find_neighbors(static_cast<int>(positions.shape(0)), positions.data(), cell.data(), pbc, r_max);
        return py::make_tuple(n.sender.size(), n.num_isolated(), n.shortest());
      },
      py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("r_max"),
      "(number of directed edges, atoms without a neighbour, shortest distance in Angstrom, infinite without edges) of one structure.");
}
