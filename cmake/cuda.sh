#!/usr/bin/env bash
# Builds macekit for NVIDIA GPUs into $BUILD_CUDA: kernels, potentials, tests, the trainer and the Python modules. nvcc compiles the
# portable kernels, g++ the rest. MACEKIT_CUDA_ARCH is sm_90 (H100, H200) or sm_80 (A100). LibTorch, which computes losses and the
# optimiser on the host, may be the one for CPUs; CMAKE_ARGS=-DMACEKIT_ENABLE_TRAINING=OFF builds without it.
#
#   cmake/cuda.sh            builds everything; with MACEKIT_LAMMPS_SOURCE, the source of a LAMMPS with its Kokkos package for GPUs, the
#                            plugin for it as well
#   cmake/cuda.sh --check    for `make test`: where there is nvcc, compiles the kernels and links a program; where there is a GPU as
#                            well, builds everything and runs the tests. What compiled once is not compiled again until it changes.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD_CUDA:-build-cuda}
case "$build" in /*) ;; *) build=$PWD/$build ;; esac
jobs=${JOBS:-$(nproc)}
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}

targets=() stamp=
if [ "${1:-}" = --check ]; then
  if ! command -v "$nvcc" >/dev/null; then
    echo "macekit: there is no nvcc here, so the kernels are not compiled for GPUs."
    exit
  fi
  if nvidia-smi -L 2>/dev/null | grep -q GPU; then
    gpu=yes
  else
    # By content, not by date: a fresh checkout has new dates.
    sources=$(find kernels CMakeLists.txt cmake/cuda.sh cmake/dependencies.sh -type f ! -name '*.md' -print0 | sort -z | xargs -0 sha256sum; "$nvcc" --version; echo "${MACEKIT_CUDA_ARCH:-}")
    source cmake/cache.sh
    stamp=$cache/cuda-compiles-$(sha256sum <<<"$sources" | cut -c1-12)
    if [ -e "$stamp" ]; then
      echo "macekit: the kernels compile for GPUs, and have not changed since that was tried; there is no GPU here to run them."
      exit
    fi
    targets=(--target test_portable)
  fi
fi

cmake/dependencies.sh system
kokkos=$(cmake/dependencies.sh kokkos_cuda | tail -n1) python=$(cmake/dependencies.sh python | tail -n1)
kokkos=${kokkos#*=} python=${python#*=}
mkdir -p "$build"
log="$build/build.log"
echo "macekit: building for CUDA (log: $log)" >&2
{
  cmake -S . -B "$build" -G Ninja -UMACEKIT_TORCH_FOLDER -DCMAKE_PREFIX_PATH="$kokkos" -DMACEKIT_ENABLE_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DMACEKIT_ENABLE_PAIR_STYLE="$([ -n "${MACEKIT_LAMMPS_SOURCE:-}" ] && echo ON || echo OFF)" -DMACEKIT_LAMMPS_SOURCE="${MACEKIT_LAMMPS_SOURCE:-}" -DPython3_EXECUTABLE="$python/bin/python" -Dpybind11_DIR="$("$python/bin/python" -m pybind11 --cmakedir)" \
    -DMACEKIT_PYTHON_MODULE_FOLDER="$build/python/macekit" ${CMAKE_ARGS:-}
  cmake --build "$build" -j "$jobs" "${targets[@]}"
} >"$log" 2>&1 || { grep -E 'error|Error|FAILED' "$log" | head -n 20 >&2; echo "macekit: the build for CUDA failed; the whole log is $log" >&2; exit 1; }
if [ -n "$stamp" ]; then
  rm -f "${stamp%-*}"-*
  touch "$stamp"
  echo "macekit: the kernels compile for GPUs; there is no GPU here to run them."
elif [ "${gpu:-}" ]; then
  ctest --test-dir "$build" --output-on-failure
fi
