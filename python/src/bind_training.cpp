// SPDX-License-Identifier: MIT
// macekit._training: the trainer for Python. Converts and calls, nothing else. torch must be imported first.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/error.hpp"
#include "kernels/kokkos.hpp"
#include "potentials/edit.hpp"
#include "training/shards.hpp"
#include "training/statistics.hpp"
#include "training/trainer.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, c10::intrusive_ptr<T>, true)  // torch's process groups

namespace py = pybind11;
using namespace macekit;
using namespace macekit::training;

namespace {

using Array = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<int, py::array::c_style | py::array::forcecast>;

std::vector<double> numbers(const py::object& object, const char* name, std::vector<py::ssize_t> shape) {
  const auto array = object.cast<Array>();
  bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (std::size_t k = 0; fits && k < shape.size(); ++k) fits = array.shape(k) == shape[k];
  require<InputError>(fits, name, ": expected an array of ", shape.size(), " dimensions that fits the atoms, got ",
                      py::str(array.attr("shape")).cast<std::string>(), ".");
  return {array.data(), array.data() + array.size()};
}

py::array_t<double> to_numpy(const std::vector<double>& values, std::vector<py::ssize_t> shape) {
  py::array_t<double> array(std::move(shape));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

py::dict named(const std::vector<Parameter>& parameters, const torch::Tensor& flat) {
  py::dict result;
  const torch::Tensor values = flat.detach().to(torch::kFloat64).contiguous();
  for (const Parameter& p : parameters) {
    py::array_t<double> array(std::vector<py::ssize_t>(p.shape.begin(), p.shape.end()));
    std::copy_n(values.const_data_ptr<double>() + p.offset, p.size, array.mutable_data());
    result[py::str(p.name)] = array;
  }
  return result;
}

void set_parameters(const std::vector<Parameter>& parameters, torch::Tensor& target, const py::dict& values) {
  torch::Tensor flat = torch::empty({target.numel()}, torch::kFloat64);
  for (const Parameter& p : parameters) {
    require<InputError>(values.contains(p.name.c_str()), "set_parameters: ", p.name, " is missing.");
    const auto array = values[p.name.c_str()].cast<Array>();
    require<InputError>(array.size() == p.size, "set_parameters: ", p.name, " has ", array.size(), " numbers, expected ", p.size, ".");
    std::copy_n(array.data(), p.size, flat.data_ptr<double>() + p.offset);
  }
  target.copy_(flat);
}

Precision precision_of(const std::string& dtype) {
  require<InputError>(dtype == "float32" || dtype == "float64", "default_dtype: unknown value ", dtype, ". Known: float32, float64.");
  return dtype == "float64" ? Precision::float64 : Precision::float32;
}

/// The same kernels with the potential that `model` has become.
std::shared_ptr<Model> like(const Model& model, const Potential& potential) {
  return std::make_shared<Model>(potential, model.precision(), model.backend());
}

/// Rows of one bin, or of each of several.
std::vector<std::vector<int>> bins_of(const py::object& frames) {
  const auto list = frames.cast<py::list>();
  if (!list.empty() && !py::isinstance<py::int_>(list[0]) && py::isinstance<py::sequence>(list[0])) return frames.cast<std::vector<std::vector<int>>>();
  return {frames.cast<std::vector<int>>()};
}

Frame make_frame(const Integers& atomic_numbers, const py::object& positions, const py::object& cell, std::array<bool, 3> pbc,
                 const py::object& energy, const py::object& forces, const py::object& stress, const py::object& virials,
                 const std::vector<double>& weights, int head, std::map<std::string, std::vector<double>> inputs, std::string config_type,
                 std::string source) {
  Frame f;
  const py::ssize_t n = atomic_numbers.size();
  f.atomic_numbers.assign(atomic_numbers.data(), atomic_numbers.data() + n);
  f.positions = numbers(positions, "positions", {n, 3});
  const auto rows = numbers(cell, "cell", {3, 3});
  std::copy(rows.begin(), rows.end(), f.cell.begin());
  f.periodic = pbc;
  if (!energy.is_none()) f.has_energy = true, f.energy = energy.cast<double>();
  if (!forces.is_none()) f.has_forces = true, f.forces = numbers(forces, "forces", {n, 3});
  if (!stress.is_none()) {
    const auto values = numbers(stress, "stress", {3, 3});
    std::copy(values.begin(), values.end(), f.stress.begin());
    f.has_stress = true;
  }
  if (!virials.is_none()) {
    const auto values = numbers(virials, "virials", {3, 3});
    std::copy(values.begin(), values.end(), f.virials.begin());
    f.has_virials = true;
  }
  require<InputError>(weights.size() == 4 || weights.size() == 5,
                      "weights: expected those of the frame, energy, forces, stress and virials, got ", weights.size(), " numbers.");
  f.weight = weights[0], f.energy_weight = weights[1], f.forces_weight = weights[2], f.stress_weight = weights[3];
  if (weights.size() == 5) f.virials_weight = weights[4];
  f.head = head, f.inputs = std::move(inputs), f.config_type = std::move(config_type), f.source = std::move(source);
  return f;
}

py::dict to_dict(const Frame& f) {
  const auto n = static_cast<py::ssize_t>(f.atomic_numbers.size());
  const auto matrix = [](const std::array<double, 9>& m) { return to_numpy({m.begin(), m.end()}, {3, 3}); };
  const py::object none = py::none();
  return py::dict(py::arg("atomic_numbers") = py::array_t<int>(n, f.atomic_numbers.data()), py::arg("positions") = to_numpy(f.positions, {n, 3}),
                  py::arg("cell") = matrix(f.cell), py::arg("pbc") = f.periodic,
                  py::arg("energy") = f.has_energy ? py::object(py::float_(f.energy)) : none,
                  py::arg("forces") = f.has_forces ? py::object(to_numpy(f.forces, {n, 3})) : none,
                  py::arg("stress") = f.has_stress ? py::object(matrix(f.stress)) : none,
                  py::arg("virials") = f.has_virials ? py::object(matrix(f.virials)) : none,
                  py::arg("weights") = std::vector<double>{f.weight, f.energy_weight, f.forces_weight, f.stress_weight, f.virials_weight},
                  py::arg("head") = f.head, py::arg("inputs") = f.inputs, py::arg("config_type") = f.config_type, py::arg("source") = f.source);
}

py::dict to_dict(const Errors& e) {
  py::list head_losses;  // None for a head without frames
  for (double loss : e.head_losses) head_losses.append(std::isnan(loss) ? py::object(py::none()) : py::object(py::float_(loss)));
  return py::dict(py::arg("loss") = e.loss, py::arg("energy_rmse") = e.energy_rmse, py::arg("energy_mae") = e.energy_mae,
                  py::arg("forces_rmse") = e.forces_rmse, py::arg("forces_mae") = e.forces_mae,
                  py::arg("forces_relative") = e.forces_relative, py::arg("stress_rmse") = e.stress_rmse,
                  py::arg("stress_mae") = e.stress_mae, py::arg("virials_rmse") = e.virials_rmse, py::arg("virials_mae") = e.virials_mae,
                  py::arg("head_losses") = head_losses);
}

py::dict to_dict(const Report& r) {
  static const char* const kinds[] = {"step", "validation", "stage_two", "rollback", "bins", "checkpoint", "warning"};
  py::dict d(py::arg("kind") = kinds[static_cast<int>(r.kind)]);
  if (r.kind == Report::Kind::warning || r.kind == Report::Kind::checkpoint) {
    d["message"] = r.message;
    return d;
  }
  if (r.kind == Report::Kind::bins) {
    const auto n = static_cast<py::ssize_t>(r.bins->loads.size());
    std::vector<double> loads;
    for (const balance::BinLoad& b : r.bins->loads) loads.insert(loads.end(), {double(b.graphs), double(b.atoms), double(b.edges)});
    d["epoch"] = r.epoch, d["num_steps"] = r.num_steps, d["bins"] = r.bins->num_bins, d["efficiency"] = r.bins->efficiency, d["waited"] = r.bins->waited;
    d["loads"] = to_numpy(loads, {n, 3}), d["seconds"] = to_numpy(r.bins->seconds, {n});
    return d;
  }
  if (r.kind == Report::Kind::rollback) {
    d["message"] = r.message, d["epoch"] = r.epoch, d["position"] = r.position, d["num_steps"] = r.num_steps, d["lr"] = r.lr;
    d["num_rollbacks"] = r.num_rollbacks, d["frames"] = *r.frames;
    return d;
  }
  d["epoch"] = r.epoch, d["num_steps"] = r.num_steps, d["lr"] = r.lr, d["loss"] = r.loss, d["num_batches"] = r.num_batches;
  if (r.kind == Report::Kind::step) d["position"] = r.position, d["grad_norm"] = r.grad_norm, d["frames"] = *r.frames;
  if (r.kind == Report::Kind::validation) d["errors"] = to_dict(r.errors), d["seconds"] = r.seconds, d["improved"] = r.improved;
  return d;
}

Reporter reporter(const py::object& callback) {
  if (callback.is_none()) return {};
  return [callback](const Report& report) {
    const py::gil_scoped_acquire lock;
    callback(to_dict(report));
  };
}

}  // namespace

PYBIND11_MODULE(_training, m) {
  m.doc() = "The training engine of macekit. Use macekit.training, which wraps it.";
  py::register_local_exception<Error>(m, "Error", PyExc_RuntimeError);
  py::register_local_exception<InputError>(m, "InputError", PyExc_ValueError);
  py::register_local_exception<FileError>(m, "FileError", PyExc_OSError);
  start_kokkos();

  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "A potential whose weights can be trained.")
      .def_static(
          "new",
          [](const std::string& hyperparameters, const std::vector<double>& atomic_energies, const std::vector<double>& scale,
             const std::vector<double>& shift, std::uint64_t seed, const std::string& dtype, const std::string& device) {
            return std::make_shared<Model>(new_potential(hyperparameters_from_json(hyperparameters), atomic_energies, scale, shift, seed),
                                           precision_of(dtype), backend_of(device));
          },
          py::arg("hyperparameters"), py::arg("atomic_energies"), py::arg("scale"), py::arg("shift"), py::arg("seed"), py::arg("dtype"),
          py::arg("device") = "auto")
      .def_static(
          "load",
          [](const std::string& path, const std::string& dtype, const std::string& device) {
            return std::make_shared<Model>(Potential::load(path), precision_of(dtype), backend_of(device));
          },
          py::arg("path"), py::arg("dtype"), py::arg("device") = "auto")
      .def(
          "with_elements",
          [](const Model& model, const std::vector<int>& atomic_numbers) {
            return like(model, select_elements(model.potential(model.flat(), "{}"), atomic_numbers));
          },
          py::arg("atomic_numbers"), "the same potential for some of its elements")
      .def(
          "with_heads",
          [](const Model& model, const std::vector<std::pair<std::string, std::string>>& heads) {
            const Potential potential = model.potential(model.flat(), "{}");
            std::vector<HeadSource> sources;
            for (const auto& [name, source] : heads) sources.push_back({name, potential.head_of(source)});
            return like(model, with_heads(potential, sources));
          },
          py::arg("heads"), "the same potential with heads (name, head that it starts from)")
      .def("copy", [](const Model& model) { return like(model, model.potential(model.flat(), "{}")); })
      .def("add_low_rank", &Model::add_low_rank, py::arg("rank"), py::arg("alpha"), py::arg("seed"))
      .def("save", [](const Model& model, const std::string& path,
                      const std::string& metadata) { model.potential(model.weights(model.trained()), metadata).save(path); })
      .def(
          "best",
          [](const Model& model, const std::string& checkpoint) {
            return like(model, model.potential(averaged_weights(read_safetensors(checkpoint), model), "{}"));
          },
          py::arg("checkpoint"), "a plain model with the averaged weights of a checkpoint")
      .def("set_atomic_energies", &Model::set_atomic_energies)
      .def_property_readonly("hyperparameters", [](const Model& model) { return to_json(model.hyperparameters()); })
      .def_property_readonly("num_parameters", [](const Model& model) { return model.flat().numel(); })
      .def_property_readonly("num_trained", [](const Model& model) { return model.trained().numel(); })
      .def_property_readonly("num_decayed", &Model::num_decayed)
      .def_property_readonly("constants",
                             [](const Model& model) {
                               const auto c = model.constants();
                               return py::dict(py::arg("scale") = c.scale, py::arg("shift") = c.shift,
                                               py::arg("atomic_energies") = c.atomic_energies);
                             })
      .def("parameters", [](const Model& model) { return named(model.parameters(), model.weights(model.trained())); })
      .def(
          "groups",
          [](const Model& model) {
            std::map<std::string, std::int64_t> sizes;
            for (const Parameter& p : model.trained_parameters()) sizes[group_of(p.name)] += p.size;
            return sizes;
          },
          "numbers that are trained, by parameter group")
      .def(
          "set_parameters", [](Model& model, const py::dict& values) { set_parameters(model.parameters(), model.flat(), values); },
          "weights by name, all of them; other names are ignored");

  py::class_<Dataset, std::shared_ptr<Dataset>>(m, "Dataset", "Frames with their neighbour lists.")
      .def(py::init<std::vector<int>, double>(), py::arg("atomic_numbers"), py::arg("r_max"))
      .def(
          "add",
          [](Dataset& data, const Integers& atomic_numbers, const py::object& positions, const py::object& cell, std::array<bool, 3> pbc,
             const py::object& energy, const py::object& forces, const py::object& stress, const py::object& virials,
             const std::vector<double>& weights, int head, std::map<std::string, std::vector<double>> inputs, std::string config_type,
             std::string source) {
            data.add(make_frame(atomic_numbers, positions, cell, pbc, energy, forces, stress, virials, weights, head, std::move(inputs),
                                std::move(config_type), std::move(source)));
          },
          py::arg("atomic_numbers"), py::arg("positions"), py::arg("cell"), py::arg("pbc"), py::arg("energy") = py::none(),
          py::arg("forces") = py::none(), py::arg("stress") = py::none(), py::arg("virials") = py::none(),
          py::arg("weights") = std::vector<double>{1, 1, 1, 1, 1}, py::arg("head") = 0,
          py::arg("inputs") = std::map<std::string, std::vector<double>>{}, py::arg("config_type") = "Default", py::arg("source") = "frame",
          "weights: of the frame, its energy, forces, stress and virials")
      .def("__len__", &Dataset::size)
      .def(
          "add_rows",
          [](Dataset& data, std::shared_ptr<Shards> shards, std::vector<std::int64_t> rows, int head, double weight,
             std::map<std::string, double> config_type_weights, std::vector<std::string> inputs) {
            data.add({std::move(shards), std::move(rows), head, weight, std::move(config_type_weights), std::move(inputs)});
          },
          py::arg("shards"), py::arg("rows"), py::arg("head") = 0, py::arg("weight") = 1.0,
          py::arg("config_type_weights") = std::map<std::string, double>{}, py::arg("inputs") = std::vector<std::string>{},
          py::call_guard<py::gil_scoped_release>(), "rows of a prepared dataset, read when they are wanted and not kept")
      .def("num_edges", &Dataset::num_edges);

  py::class_<Shards, std::shared_ptr<Shards>>(m, "Shards", "A folder of macekit prepare, read by the trainer's own code.")
      .def(py::init<const std::string&>(), py::arg("folder"))
      .def("__len__", &Shards::size)
      .def("num_atoms", &Shards::num_atoms)
      .def("num_edges", &Shards::num_edges)
      .def("verify", [](const Shards& shards) { shards.verify(); })
      .def("frame", [](const Shards& shards, std::int64_t i) { return to_dict(shards.frame(i)); }, "the keyword arguments of Dataset.add");

  py::class_<Ranks>(m, "Ranks", "The processes that train together.")
      .def(py::init<>())
      .def(py::init([](const py::object& group) { return Ranks(group.cast<c10::intrusive_ptr<c10d::ProcessGroup>>()); }), py::arg("group"),
           "of a torch.distributed.ProcessGroup")
      .def_property_readonly("rank", &Ranks::rank)
      .def_property_readonly("size", &Ranks::size)
      .def("agree", &Ranks::agree, py::arg("failure"), py::call_guard<py::gil_scoped_release>(),
           "raises on all ranks the failure of the lowest rank that has one")
      .def("require_same", &Ranks::require_same, py::arg("what"), py::arg("value"), py::call_guard<py::gil_scoped_release>());

  py::class_<Trainer>(m, "Trainer", "Trains a model on a dataset.")
      .def(py::init([](std::shared_ptr<Model> model, std::shared_ptr<Dataset> train, std::shared_ptr<Dataset> valid,
                       const std::string& settings, const std::string& identity, const Ranks& ranks) {
             const py::gil_scoped_release free;
             return std::make_unique<Trainer>(std::move(model), std::move(train), std::move(valid), settings_from_json(settings), identity,
                                              ranks);
           }),
           py::arg("model"), py::arg("train"), py::arg("valid"), py::arg("settings") = "{}", py::arg("identity") = "{}",
           py::arg("ranks") = Ranks())
      .def(
          "gradient",
          [](Trainer& t, const py::object& frames) {
            std::pair<double, torch::Tensor> result;
            const balance::Step step = make_step(t.training_set(), bins_of(frames));
            {
              const py::gil_scoped_release free;
              result = t.gradient(step);
            }
            return py::make_tuple(result.first, named(t.model().trained_parameters(), result.second));
          },
          py::arg("frames"), "loss and gradients by name of the frames as one batch; frames: rows, or a list of rows for each bin")
      .def(
          "step",
          [](Trainer& t, const py::object& frames) {
            StepResult result;
            const balance::Step step = make_step(t.training_set(), bins_of(frames));
            {
              const py::gil_scoped_release free;
              result = t.step(step);
            }
            return py::make_tuple(result.loss, result.grad_norm);
          },
          py::arg("frames"), "one optimiser step; frames: rows, or a list of rows for each bin")
      .def(
          "batch",
          [](Trainer& t, std::int64_t epoch, std::int64_t position) {
            const balance::Step step = t.batches().step(epoch, position);
            std::vector<std::vector<std::int64_t>> bins;
            for (int k = 0; k < step.num_bins(); ++k) bins.emplace_back(step.bin(k).begin(), step.bin(k).end());
            return bins;
          },
          py::arg("epoch"), py::arg("position"), "rows of each bin of a step")
      .def("num_batches", [](Trainer& t, std::int64_t epoch) { return t.batches().num_steps(epoch); }, py::arg("epoch") = 0)
      .def(
          "restore", [](Trainer& t, const py::object& callback) { return t.restore(reporter(callback)); }, py::arg("report") = py::none())
      .def(
          "fit",
          [](Trainer& t, const py::object& callback) {
            const Reporter report = reporter(callback);
            Outcome outcome;
            {
              const py::gil_scoped_release free;
              outcome = t.fit(report);
            }
            static const char* const kinds[] = {"finished", "patience", "interrupted", "diverged"};
            return py::dict(py::arg("kind") = kinds[static_cast<int>(outcome.kind)], py::arg("signal") = outcome.signal,
                            py::arg("message") = outcome.message, py::arg("frames") = outcome.frames);
          },
          py::arg("report") = py::none())
      .def("save", [](const Trainer& t) { t.save(); })
      .def("parameters", [](Trainer& t) { return named(t.model().trained_parameters(), t.model().trained()); })
      .def("averaged_parameters", [](Trainer& t) { return named(t.model().trained_parameters(), t.optimizer().averaged()); })
      .def("set_parameters",
           [](Trainer& t, const py::dict& values) { set_parameters(t.model().trained_parameters(), t.model().trained(), values); })
      .def(
          "averaged",
          [](Trainer& t) {
            return like(t.model(), t.model().potential(t.model().weights(t.optimizer().averaged()), "{}"));
          },
          "a plain model with the averaged weights")
      .def("best_path", [](const Trainer& t, bool stage_two) { return t.checkpoints().best_path(stage_two); })
      .def("checkpoints", [](const Trainer& t) { return t.checkpoints().paths(); })
      .def_property_readonly("lr", &Trainer::lr)
      .def_property_readonly("num_steps", [](const Trainer& t) { return t.optimizer().num_steps; })
      .def_property_readonly("num_rollbacks", [](const Trainer& t) { return t.state().num_rollbacks; })
      .def_property_readonly("epoch", [](const Trainer& t) { return t.state().epoch; })
      .def_property_readonly("best_epoch", [](const Trainer& t) { return t.state().best_epoch; })
      .def_property_readonly("stage_two", [](const Trainer& t) { return t.state().stage_two; });

  m.def(
      "device",
      [](const std::string& name) { return backend_of(name) == Backend::simd ? "cpu" : portable_is_gpu() ? "gpu" : "portable"; },
      py::arg("name"), "what auto, cpu or gpu means here");
  m.def("mean_neighbors", &mean_neighbors);
  m.def("fit_atomic_energies", &fit_atomic_energies, py::arg("data"), py::arg("known"), py::arg("head") = 0);
  m.def(
      "scale_and_shift",
      [](const Dataset& data, const std::vector<double>& atomic_energies, const std::string& scaling, int head) {
        const ScaleShift s = scale_and_shift(data, atomic_energies, scaling, head);
        return py::make_tuple(s.scale, s.shift);
      },
      py::arg("data"), py::arg("atomic_energies"), py::arg("scaling") = "rms_forces_scaling", py::arg("head") = 0);
  m.def("remove_checkpoints", [](const std::string& folder, const std::string& name) { CheckpointFolder(folder, name).remove_all(); });
  m.def("find_checkpoints", [](const std::string& folder, const std::string& name) { return CheckpointFolder(folder, name).paths(); });
  m.def(
      "predict",
      [](Model& model, const Dataset& data, int batch_size, int first, std::optional<int> last) {
        Predictions p;
        {
          const py::gil_scoped_release free;
          p = predict(model, model.weights(model.trained()), data, batch_size, first, std::min(last.value_or(data.size()), data.size()));
        }
        const auto n = static_cast<py::ssize_t>(p.energy.size()), atoms = static_cast<py::ssize_t>(p.forces.size() / 3);
        return py::make_tuple(to_numpy(p.energy, {n}), to_numpy(p.forces, {atoms, 3}), to_numpy(p.stress, {n, 3, 3}),
                              to_numpy(p.virials, {n, 3, 3}));
      },
      py::arg("model"), py::arg("data"), py::arg("batch_size") = 10, py::arg("first") = 0, py::arg("last") = py::none(),
      "energies, forces of frames first .. last - 1 joined, stresses and virials (NaN without a label)");
}
