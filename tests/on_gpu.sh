#!/usr/bin/env bash
# on_gpu.sh PROGRAM: runs a test program that needs a GPU; without one, ctest counts it as skipped.
if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo "macekit: there is no NVIDIA GPU here, so $(basename "$1") is compiled and not run."
  exit 77
fi
exec "$@"
