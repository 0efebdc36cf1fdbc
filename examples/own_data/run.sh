#!/usr/bin/env bash
# From folders of DFT runs to a potential and its errors.
source "$(dirname "$0")/../start.sh"

echo "== 1/5 runs to learn from (tblite in the place of VASP) =="
rm -rf "$run/runs"
python make_runs.py "$run/runs" --frames "$(size 10 2)" --trajectories "$(size 4 3)" --spacing "$(size 5 1)"
echo
echo "== 2/5 collect =="
python collect.py "$run/runs" -o "$run/data"
echo
echo "== 3/5 look at the data =="
macekit data check "$run"/data/*.extxyz --r-max 4.5 --html "$run/data.html"
echo
echo "== 4/5 train =="
macekit train config.yaml --work_dir "$run" --restart no --max_num_epochs "$(size 60 8)" --plot "$(size true false)" \
  --train_file "$run/data/train.extxyz" --valid_file "$run/data/valid.extxyz" --test_file "$run/data/test.extxyz"
echo
echo "== 5/5 errors on runs that it has not seen =="
macekit eval "$run/own.mace" "$run/data/test.extxyz" -o "$run/evaluated.extxyz"
