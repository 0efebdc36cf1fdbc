#!/usr/bin/env bash
# Trains the potentials that come with macekit, on the data sets named in their configurations, as extended XYZ with REF_energy, REF_forces and REF_stress:
#   run.sh silicon Si_train.extxyz Si_test.extxyz
set -euo pipefail
[ $# -eq 3 ] || { sed -n 's/^# \{0,1\}//p' "$0" | tail -n +2 >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
macekit train "$here/$1.yaml" --train_file "$2" --test_file "$3" --work_dir "run-$1"
macekit uncertainty "run-$1/$1.mace" "$2" --calibrate "$3" -o "run-$1/$1.mace"
macekit check "run-$1/$1.mace" "$3"
