// SPDX-License-Identifier: MIT
// macekit._core: owns Kokkos if nobody else does, translates exceptions, lists the bind_* functions.
#include <pybind11/pybind11.h>

#include <chrono>
#include <cstdlib>

#include "kernels/backend.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/error.hpp"
#include "kernels/kokkos.hpp"
#include "kernels/parts.hpp"

namespace py = pybind11;

void bind_potential(py::module_& m);

namespace {

void start_kokkos() {
  if (macekit::kokkos_runs()) return;
  int count = 0;
  if (const char* threads = std::getenv("MACEKIT_NUM_THREADS")) {
    count = std::atoi(threads);
    macekit::require<macekit::InputError>(count > 0, "MACEKIT_NUM_THREADS is '", threads, "', it must be a positive number of threads.");
  }
  macekit::start_kokkos(count);
  py::module_::import("atexit").attr("register")(py::cpp_function([] { macekit::stop_kokkos(); }));
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Potentials for Python: load, evaluate, write. Needs no LibTorch.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const macekit::FileError& e) {
      PyErr_SetString(PyExc_OSError, e.what());
    } catch (const macekit::InputError& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const macekit::Error& e) {
      PyErr_SetString(PyExc_RuntimeError, e.what());
    }
  });
  start_kokkos();
  m.attr("__version__") = MACEKIT_VERSION;
  m.def("num_threads", [] { return macekit::num_parts(); });
  m.def("has_gpu", [] { return macekit::portable_is_gpu(); });
  m.def("instruction_set", [] { return std::string(macekit::name(macekit::instruction_set())); });
  m.def(
      "multiply_add_rate",
      [](const std::string& precision) {
        const auto start = std::chrono::steady_clock::now();
        const double count = precision == "float32" ? macekit::multiply_adds<float>(30'000'000) : macekit::multiply_adds<double>(30'000'000);
        return count / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      },
      py::arg("precision"), "Multiply-adds a second that all threads together reach in registers; takes about 0.1 s.");
  bind_potential(m);
}
