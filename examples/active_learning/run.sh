#!/usr/bin/env bash
# Active learning of ethanol: a committee of three says which structures of its own dynamics are worth a calculation.
source "$(dirname "$0")/../start.sh"

rm -rf "$run"/round-*   # leave this out to go on where it was killed
if [ "$(size full short)" = full ]; then
  python learn.py "$run"
else
  python learn.py "$run" --rounds 2 --runs 4 --steps 200 --test 12 --first 6 --add 16 --max_num_epochs 40 --num_channels 8 --committee 2
fi
