#!/usr/bin/env bash
# Active learning of ethanol: a committee of three says which structures of its own dynamics are worth a calculation.
source "$(dirname "$0")/../start.sh"

rm -rf "$run"/round-*   # leave this out to go on where it was killed
if [ "$(size full short)" = full ]; then
  python learn.py "$run"
else
  python learn.py "$run" --rounds 2 --runs 2 --steps 60 --test 8 --first 6 --add 6 --max_num_epochs 12 --num_channels 8 --committee 2 --max_L 0
fi
