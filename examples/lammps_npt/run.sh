#!/usr/bin/env bash
# Silicon at 300 K and no pressure on RANKS ranks (2), with the potential that comes with macekit.
source "$(dirname "$0")/../start.sh"

echo "== 1/2 LAMMPS on ${RANKS:-2} ranks =="
on_ranks "${RANKS:-2}" lmp -in in.npt -var potential silicon -var out "$run" -log "$run/log.lammps" \
  -var repeat "$(size 3 2)" -var warm "$(size 1000 30)" -var steps "$(size 5000 100)" >"$run/lammps.out" || { tail -n 20 "$run/lammps.out"; exit 1; }
grep -E 'Loop time|Performance' "$run/log.lammps" | tail -n 2
echo
echo "== 2/2 what it says =="
python plot.py "$run/thermo.txt" "$run/npt.png"
echo "written: $run/npt.png, $run/thermo.txt, $run/log.lammps"
