# SPDX-License-Identifier: MIT
# Sourced by the run.sh of the examples, which are called as  run.sh [FOLDER]: results go to FOLDER (default: run, beside run.sh).
# MACEKIT_EXAMPLE=short takes the small sizes that tests/examples runs.
set -euo pipefail
[ $# -eq 0 ] || { mkdir -p "$1" && run=$(cd "$1" && pwd); }
cd "$(dirname "$0")"
[ -n "${run:-}" ] || { mkdir -p run && run=$PWD/run; }
command -v macekit >/dev/null || eval "$(../../cmake/environment.sh)"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} KOKKOS_DISABLE_WARNINGS=1 GOMP_SPINCOUNT=1000

size() { [ "${MACEKIT_EXAMPLE:-}" = short ] && echo "$2" || echo "$1"; }   # size FULL SHORT

on_ranks() {   # on_ranks N COMMAND ..: with one thread each
  OMP_NUM_THREADS=1 mpirun ${MACEKIT_MPIRUN_FLAGS:---oversubscribe --allow-run-as-root} -np "$@"
}
