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
ctest --test-dir "$build" --output-on-failure -j 2
python -m pytest tests -q -x "$@"
