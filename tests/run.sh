#!/usr/bin/env bash
# Runs every test: GoogleTest through ctest, then pytest (which starts mpirun where ranks are needed).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
eval "$(BUILD=$build cmake/environment.sh)"
shared=${MACEKIT_SHARED:-$PWD/../shared}
if [ -d "$shared/reference" ]; then
  export MACEKIT_SHARED=$shared
  echo "macekit: parity tests use the shared reference cases and cases made here with mace-torch"
else
  unset MACEKIT_SHARED
  echo "macekit: no shared reference cases; parity tests use cases made here with mace-torch"
fi
export GOMP_SPINCOUNT=1000 KOKKOS_DISABLE_WARNINGS=1
export OMPI_MCA_mpi_yield_when_idle=1   # more ranks than cores, and other tests beside them
ctest --test-dir "$build" --output-on-failure --progress -j 2 | tail -n 30
# A file at a time on each core; files are independent.
python -m pytest tests -q -x -n "$(nproc)" --dist loadfile --durations=25 "$@"
