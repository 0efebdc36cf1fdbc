#!/usr/bin/env bash
# Prints shell commands that put macekit, lmp and `import macekit` on the path:  eval "$(make -s env)"
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
case "$build" in /*) ;; *) build=$PWD/$build ;; esac
if [ ! -e "$build/dependencies.txt" ]; then
  echo "echo 'macekit: nothing is built yet; run make build first' >&2; false"
  exit 1
fi
place() { sed -n "s/^$1=//p" "$build/dependencies.txt"; }
echo "export PATH='$build/bin:$(place lammps)/bin:$(place python)/bin':\"\$PATH\""
echo "export PYTHONPATH='$PWD/python':\"\${PYTHONPATH:-}\""
echo "export LAMMPS_PLUGIN_PATH='$build/pair_style'"
echo "export LAMMPS_POTENTIALS=\"\${LAMMPS_POTENTIALS:+\$LAMMPS_POTENTIALS:}\"'$PWD/potentials'"
echo "export MACEKIT_BUILD='$build'"
echo "export MACEKIT_LMP='$(place lammps)/bin/lmp'"
[ -z "$(place peer)" ] || echo "export MACEKIT_PEER_PYTHON='$(place peer)/bin/python'"
for wheel in "$build"/dist/macekit-*.whl; do
  [ ! -e "$wheel" ] || printf "export MACEKIT_WHEEL='%s' MACEKIT_WHEEL_TOOLS='%s'\n" "$wheel" "$(place wheel)"
done
