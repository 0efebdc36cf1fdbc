#!/usr/bin/env bash
# Fine-tunes `silicon` to data of another method, without and with a replay of old data, and says what was learnt and what forgotten.
source "$(dirname "$0")/../start.sh"

echo "== 1/4 data =="
python make_data.py "$run/data" --train "$(size 48 6)" --test "$(size 16 2)" --cell "$(size 2,2,2 2,2,1)"
config=config.yaml
train() {   # train NAME OPTIONS ..
  macekit train "$config" --name "$1" --work_dir "$run" --restart no --plot "$(size true false)" --max_num_epochs "$(size 40 5)" \
    --train_file "$run/data/new_train.extxyz" --test_file "$run/data/new_test.extxyz" "${@:2}"
}
echo
echo "== 2/4 fine-tuning on the new data alone =="
train naive --pt_test_file "$run/data/old_test.extxyz"
echo
echo "== 3/4 fine-tuning with a replay of old data =="
train replay --pt_test_file "$run/data/old_test.extxyz" --pt_train_file "$run/data/old_train.extxyz"
echo
if [ "$(size full short)" = full ]; then
  echo "== 4/4 for comparison: the new data without the old potential =="
  sed '/foundation_model\|pt_test_file\|E0s/d' config.yaml >"$run/scratch.yaml"
  config=$run/scratch.yaml
  train scratch --E0s average --model ScaleShiftMACE --num_channels 64 --lr 0.01
  echo
fi
python compare.py "$run"
