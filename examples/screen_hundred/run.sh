#!/usr/bin/env bash
# A hundred structures of silicon: relaxed, ranked; equations of state and elastic constants of the best. Started again after a kill, it goes on.
source "$(dirname "$0")/../start.sh"

echo "== 1/4 structures =="
python make_structures.py "$run/hundred.extxyz" --every "$(size 1 13)"
echo
echo "== 2/4 relax atoms and cells =="
status=0   # 2: some structure failed, which is for the report
macekit screen relax "$run/hundred.extxyz" -p silicon -o "$run/relaxed" --fmax "$(size 0.01 0.05)" --max-steps "$(size 500 60)" || status=$?
[ $status -eq 0 ] || [ $status -eq 2 ]
echo
echo "== 3/4 rank =="
python rank.py "$run/relaxed/structures.extxyz" "$run/best.extxyz" --best "$(size 6 1)"
echo
echo "== 4/4 the best in more detail =="
macekit screen eos "$run/best.extxyz" -p silicon -o "$run/eos"
macekit screen elastic "$run/best.extxyz" -p silicon -o "$run/elastic"
python - "$run" <<'PYTHON'
import csv
import sys

rows = {verb: {row["name"]: row for row in csv.DictReader(open(f"{sys.argv[1]}/{verb}/results.csv"))} for verb in ("eos", "elastic")}
print(f"{'structure':24} {'bulk modulus, GPa':>18} {'C11':>7} {'C12':>7} {'C44':>7} {'lowest eigenvalue':>18}")
for name, row in rows["elastic"].items():
    numbers = [rows["eos"][name].get("bulk_modulus"), *(row.get(key) for key in ("C11", "C12", "C44", "lowest_eigenvalue"))]
    print(f"{name:24} " + " ".join(f"{float(x):{width}.1f}" if x else f"{'-':>{width}}" for x, width in zip(numbers, (18, 7, 7, 7, 18))))
PYTHON
echo "written: $run/relaxed/report.html, $run/eos/report.html, $run/elastic/report.html"
