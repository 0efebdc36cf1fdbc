#!/usr/bin/env bash
# run.sh mace|model SECONDS [MODEL..]: fuzzes one reader from seeds made here, and from files of mace-torch if any are named.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kind=$1 seconds=$2
shift 2
work=${FUZZ_DIR:-$here/../../build/fuzz}
mkdir -p "$work/corpus-$kind" "$work/findings"
python "$here/make_seeds.py" "$work/seeds" "$@"
options=(-max_total_time="$seconds" -rss_limit_mb=3000 -timeout=60 -print_final_stats=1 -artifact_prefix="$work/findings/$kind-")
if [ "$kind" = mace ]; then
  cd "$here/../.."
  ${CLANG:-clang++} -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -ffunction-sections -fdata-sections -Wl,--gc-sections \
    -I. tests/fuzz/fuzz_mace.cpp potentials/{potential,tensors,hyperparameters,architecture,model}.cpp kernels/tables/*.cpp -o "$work/fuzz_mace"
  "$work/fuzz_mace" -max_len=200000 -dict="$here/mace.dict" "${options[@]}" "$work/corpus-mace" "$work/seeds/mace"
else
  FUZZ_MODELS=$(IFS=:; echo "$*") python "$here/fuzz_model.py" -max_len=600000 -dict="$here/model.dict" "${options[@]}" "$work/corpus-model" "$work/seeds/model"
fi
