#!/usr/bin/env bash
# The same training with batches of equal work and of equal number, on two processes; then one that is continued in the middle of an epoch.
source "$(dirname "$0")/../start.sh"

train() {
  OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node "${RANKS:-2}" train.py --structures "$(size 240 30)" --epochs "$(size 12 2)" --step "$(size 16 6)" "$@"
}
echo "== 1/2 batches of an equal number of structures, and batches of equal work =="
train --sampler fixed balanced --checkpoint "$run/state.pt" --at "$(size 70 7)" | tee "$run/compared.txt"
echo
echo "== 2/2 continued from the checkpoint in the middle of an epoch, as after a kill: the same weights =="
train --continue-from "$run/state.pt" | tee "$run/continued.txt"
[ "$(grep -o 'balanced.*weights .*' "$run/compared.txt")" = "$(grep -o 'balanced.*weights .*' "$run/continued.txt")" ] || { echo "the continued training has other weights"; exit 1; }
