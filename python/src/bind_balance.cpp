// SPDX-License-Identifier: MIT
// macekit._balance: data distribution for Python. Converts and calls, nothing else.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>

#include "kernels/error.hpp"
#include "training/balance/permutation.hpp"
#include "training/balance/sampler.hpp"

namespace py = pybind11;
using namespace macekit;
using namespace macekit::balance;

namespace {

template <class T>
py::array_t<T> to_numpy(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

template <class T>
const T* column(const py::array& array) {
  return static_cast<const T*>(array.data());
}

/// Calls use(pointer) with the pointer to the array's integers, whatever their width.
template <class Use>
auto with_integers(const py::array& array, const char* name, Use use) {
  require<InputError>(array.ndim() == 1 && (array.flags() & py::array::c_style), name, ": expected one contiguous row of integers.");
  const std::string type = py::str(array.dtype()).cast<std::string>();
  if (type == "uint16") return use(column<std::uint16_t>(array));
  if (type == "int32") return use(column<std::int32_t>(array));
  if (type == "uint32") return use(column<std::uint32_t>(array));
  require<InputError>(type == "int64", name, ": expected uint16, int32, uint32 or int64, got ", type, ".");
  return use(column<std::int64_t>(array));
}

/// Keeps Python objects alive from a thread that may not hold the interpreter's lock.
std::shared_ptr<const void> keep(py::object object) {
  auto* kept = new py::object(std::move(object));
  return {kept, [](const void* p) {
            const py::gil_scoped_acquire lock;
            delete static_cast<const py::object*>(p);
          }};
}

std::shared_ptr<const Sizes> sizes_of_arrays(const py::array& atoms, const py::array& edges) {
  require<InputError>(atoms.size() == edges.size(), "num_atoms has ", atoms.size(), " structures, num_edges ", edges.size(), ".");
  const auto owner = keep(py::make_tuple(atoms, edges));
  return with_integers(atoms, "num_atoms", [&](const auto* a) {
    return with_integers(edges, "num_edges", [&](const auto* e) { return sizes_of(a, e, atoms.size(), owner); });
  });
}

std::shared_ptr<const Sizes> sizes_of_call(std::int64_t size, py::object read) {
  const auto owner = keep(read);
  return sizes_of(size, [owner](std::int64_t first, std::int64_t count, Size* to) {
    const py::gil_scoped_acquire lock;
    using Column = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;
    const auto columns = (*static_cast<const py::object*>(owner.get()))(first, count).cast<std::pair<Column, Column>>();
    require<InputError>(columns.first.size() == count && columns.second.size() == count, "the function of sizes was asked for ", count,
                        " structures from ", first, " and gave ", columns.first.size(), " numbers of atoms, ", columns.second.size(),
                        " of edges.");
    for (std::int64_t i = 0; i < count; ++i) to[i] = {columns.first.data()[i], columns.second.data()[i]};
  });
}

}  // namespace

PYBIND11_MODULE(_balance, m) {
  m.doc() = "Data distribution. Use macekit.balance, which wraps it.";
  py::register_local_exception<Error>(m, "Error", PyExc_RuntimeError);
  py::register_local_exception<InputError>(m, "InputError", PyExc_ValueError);

  py::class_<Cost>(m, "Cost", "Work of a bin: atom * atoms + edge * edges + graph * structures.")
      .def(py::init([](double atom, double edge, double graph) {
             return Cost{atom, edge, graph};
           }),
           py::arg("atom"), py::arg("edge"), py::arg("graph"))
      .def_readonly("atom", &Cost::atom)
      .def_readonly("edge", &Cost::edge)
      .def_readonly("graph", &Cost::graph);

  py::class_<Sizes, std::shared_ptr<Sizes>>(m, "Sizes")
      .def(py::init([](const py::array& atoms, const py::array& edges) {
             return std::const_pointer_cast<Sizes>(sizes_of_arrays(atoms, edges));
           }),
           py::arg("num_atoms"), py::arg("num_edges"), "columns of uint16, int32, uint32 or int64; not copied")
      .def(
          py::init([](std::int64_t size, py::object read) { return std::const_pointer_cast<Sizes>(sizes_of_call(size, std::move(read))); }),
          py::arg("size"), py::arg("read"), "read(first, count) gives both columns of that part")
      .def("__len__", &Sizes::size);

  py::class_<Step>(m, "Step", "One optimiser step.")
      .def_readonly("epoch", &Step::epoch)
      .def_readonly("index", &Step::index)
      .def_property_readonly("num_bins", &Step::num_bins)
      .def_property_readonly(
          "structures", [](const Step& s) { return to_numpy(s.structures); }, "rows of the set, bin by bin")
      .def_property_readonly(
          "first", [](const Step& s) { return to_numpy(s.first); }, "[bins + 1] where each bin begins")
      .def("bin", [](const Step& s, int k) { return std::vector<std::int64_t>(s.bin(k).begin(), s.bin(k).end()); })
      .def_property_readonly(
          "loads",
          [](const Step& s) {
            py::array_t<std::int64_t> loads({static_cast<py::ssize_t>(s.loads.size()), py::ssize_t{3}});
            for (py::ssize_t k = 0; k < loads.shape(0); ++k)
              loads.mutable_at(k, 0) = s.loads[k].graphs, loads.mutable_at(k, 1) = s.loads[k].atoms,
                                  loads.mutable_at(k, 2) = s.loads[k].edges;
            return loads;
          },
          "[bins, 3] structures, atoms, edges")
      .def_property_readonly(
          "total", [](const Step& s) { return py::make_tuple(s.total.graphs, s.total.atoms, s.total.edges); },
          "structures, atoms, edges of the step")
      .def(
          "assign",
          [](const Step& s, int num_ranks, const Cost* cost) {
            return cost ? assign_bins(s, num_ranks, *cost) : assign_bins(s, num_ranks);
          },
          py::arg("num_ranks"), py::arg("cost") = nullptr, "the bins of each rank");

  py::class_<Sampler>(m, "Sampler", "The plan of a training.")
      .def(py::init([](const std::string& kind, std::shared_ptr<Sizes> sizes, int virtual_bins, std::int64_t max_atoms,
                       std::int64_t max_edges, std::int64_t max_graphs, std::int64_t step_graphs, std::uint64_t seed,
                       const std::string& mode, const Cost* cost, int nodes, int window_steps, int block_size, int window_blocks,
                       std::int64_t bin_graphs) {
             require<InputError>(mode == "vector" || mode == "cost", "mode is ", mode, "; known are vector, cost.");
             Options o{virtual_bins,
                       max_atoms,
                       max_edges,
                       max_graphs,
                       step_graphs,
                       seed,
                       mode == "cost" ? Mode::cost : Mode::vector,
                       cost ? *cost : Cost{},
                       nodes,
                       window_steps,
                       block_size,
                       window_blocks,
                       bin_graphs};
             const py::gil_scoped_release free;
             return make_sampler(kind_of(kind), std::move(sizes), o);
           }),
           py::arg("kind"), py::arg("sizes"), py::kw_only(), py::arg("virtual_bins") = 1, py::arg("max_atoms") = 0,
           py::arg("max_edges") = 0, py::arg("max_graphs") = 0, py::arg("step_graphs") = 0, py::arg("seed") = 0, py::arg("mode") = "vector",
           py::arg("cost") = nullptr, py::arg("nodes") = 1, py::arg("window_steps") = 0, py::arg("block_size") = Options{}.block_size,
           py::arg("window_blocks") = Options{}.window_blocks, py::arg("bin_graphs") = 0)
      .def("num_steps", &Sampler::num_steps, py::arg("epoch") = 0, py::call_guard<py::gil_scoped_release>())
      .def("step", &Sampler::step, py::arg("epoch"), py::arg("step"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("hash", &Sampler::hash);

  m.def(
      "permutation",
      [](std::uint64_t size, std::uint64_t key, const std::vector<std::uint64_t>& places) {
        const Permutation permutation(size, key);
        std::vector<std::uint64_t> result;
        for (std::uint64_t i : places) {
          require<InputError>(i < size, "place ", i, " of a permutation of ", size, ".");
          result.push_back(permutation(i));
        }
        return to_numpy(result);
      },
      py::arg("size"), py::arg("key"), py::arg("places"));
}
