#!/usr/bin/env bash
# The same training with batches of equal work and of equal number, on two processes; then one that is stopped and continued.
source "$(dirname "$0")/../start.sh"

train() {
  OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node "${RANKS:-2}" train.py --structures "$(size 240 30)" --epochs "$(size 12 2)" --step "$(size 16 6)" "$@"
}
rm -f "$run/stopped.pt"
echo "== 1/2 batches of an equal number of structures, and batches of equal work =="
train --sampler fixed balanced | tee "$run/compared.txt"
echo
echo "== 2/2 the second again, stopped in the middle of an epoch and continued: the same weights =="
train --checkpoint "$run/stopped.pt" --stop-after "$(size 70 7)"
train --checkpoint "$run/stopped.pt" | tee "$run/continued.txt"
[ "$(grep -o 'balanced.*weights .*' "$run/compared.txt")" = "$(grep -o 'balanced.*weights .*' "$run/continued.txt")" ] || { echo "the continued training has other weights"; exit 1; }
