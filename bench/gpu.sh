#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call: tests on it, steps and forward passes beside PyTorch's, a profile by kernel, a
# short training.  Results go to a folder as text and as JSON; a table is printed at the end.
#
#   bench/gpu.sh [FOLDER]              builds what is missing with cargo; FOLDER is target/gpu by default
#   bench/gpu.sh --emulated [FOLDER]   the same on the emulated device, small: to see that the script runs
#
# It needs no Rust where these name built binaries, for a machine with a device and no compiler:
#   LIPCONV_DEVICE_TESTS     the unit tests of the crate lipconv    (cargo test --release -p lipconv --lib --features cuda,cuda-emulation --no-run)
#   LIPCONV_OPERATION_TESTS  its integration tests                  (cargo test --release -p lipconv --test main --features cuda --no-run)
#   LIPCONV_DEVICE_STEP      its example device_step                (cargo build --release -p lipconv --features cuda,cuda-emulation --example device_step)
#   LIPCONV_MODULE_STEP      its example module_step                (cargo build --release -p lipconv --features cuda --example module_step)
#   LIPCONV_COMMAND          the command                            (cargo xtask cuda)
set -uo pipefail
failed=0
# Goes on after a part that fails, so that one call shows all that can be seen
failure() {
  echo "FAILED: $1"
  failed=1
}
cd "$(dirname "$0")/.."
features=cuda,cuda-emulation device=cuda
profile=--release
export LIPCONV_CUDA_DEVICE=0
if [ "${1:-}" = --emulated ]; then
  shift
  features=cuda-emulation device=emulated profile=
  unset LIPCONV_CUDA_DEVICE
fi
folder=${1:-target/gpu}
mkdir -p "$folder"

# CUDA's libraries: those of a PyTorch that is here, after what the caller has set
libraries=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
if [ -n "$libraries" ]; then
  found=$(find "$libraries" -name '*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$found
fi

# shellcheck disable=SC2086
tests() {
  if [ -n "${LIPCONV_DEVICE_TESTS:-}" ]; then "$LIPCONV_DEVICE_TESTS" engine::cuda
  else cargo test $profile -p lipconv --lib --features "$features" engine::cuda; fi
}
# The public operations on candle's tensors
operation_tests() {
  if [ -n "${LIPCONV_OPERATION_TESTS:-}" ]; then "$LIPCONV_OPERATION_TESTS" portable:: losses:: --test-threads 4
  elif [ "$device" = cuda ]; then cargo test $profile -p lipconv --test main --features cuda portable:: losses::
  else cargo test -p lipconv --test main portable::; fi
}
module_step() {
  if [ -n "${LIPCONV_MODULE_STEP:-}" ]; then "$LIPCONV_MODULE_STEP" "$@"
  elif [ "$device" = cuda ]; then cargo run $profile -q -p lipconv --features cuda --example module_step -- "$@"
  else cargo run -q -p lipconv --example module_step -- "$@"; fi
}
# shellcheck disable=SC2086
step() {
  if [ -n "${LIPCONV_DEVICE_STEP:-}" ]; then "$LIPCONV_DEVICE_STEP" "$@"
  else cargo run $profile -q -p lipconv --features "$features" --example device_step -- "$@"; fi
}
# shellcheck disable=SC2086
command_line() {
  if [ -n "${LIPCONV_COMMAND:-}" ]; then "$LIPCONV_COMMAND" "$@"
  else cargo run $profile -q -p bench-apps --features "${features%%,*}" -- "$@"; fi
}

echo "== tests of the engine"
tests > "$folder/tests.txt" 2>&1 || failure "tests of the engine"
grep -E '^test |^error|panicked' "$folder/tests.txt"
echo "== tests of the operations on candle's tensors"
operation_tests > "$folder/operations.txt" 2>&1 || failure "tests of the operations"
grep -E '^test |^error|panicked' "$folder/operations.txt"
echo "== milliseconds of a training step, many steps between two reads, images on the device"
: > "$folder/steps.jsonl"
peer="" bench="--batch 2 --repeat 3" networks="small-mnist" steps=2
if [ "$device" = cuda ]; then
  steps=400 bench="--repeat 30" networks="small-mnist,large-cifar10"
  python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null && peer="--peer-script bench/peer_torch.py"
  kinds="large bcop|large bcop lln|large rko|large plain|small bcop|small plain"
else
  kinds="small bcop"
fi
while read -r words; do
  # shellcheck disable=SC2086
  step $words $steps < /dev/null | tee -a "$folder/steps.jsonl" || failure "step $words"
done <<< "${kinds//|/$'\n'}"
echo "== networks of candle modules"
where=cpu module_steps=3
if [ "$device" = cuda ]; then where=cuda module_steps=40; fi
for network in small large; do
  module_step $network $where $module_steps | tee -a "$folder/steps.jsonl" || failure "modules $network"
  if [ "$device" = emulated ]; then break; fi
done
echo "== the command: steps and forward passes, one read in each"
for what in step infer; do
  # shellcheck disable=SC2086
  command_line bench $what --device "$device" --net $networks $bench $peer --json "$folder/bench-$what.json" || failure "bench $what"
done
echo "== a short training"
rm -rf "$folder/run"
limits="--train-limit 20 --test-limit 20 --batch-size 8"
if [ "$device" = cuda ]; then limits="--train-limit 20000 --test-limit 2000"; fi
# shellcheck disable=SC2086
command_line train --dataset synthetic $limits --epochs 2 --device "$device" --out "$folder/run" --quiet || failure "the training"
echo "== copies between host and device, beside graphs"
# counted by a library between the program and the driver
if [ "$device" = cuda ] && command -v cc > /dev/null && [ -n "${LIPCONV_DEVICE_STEP:-}" ]; then
  cc -shared -fPIC -O1 -o "$folder/count_copies.so" bench/count_copies.c -ldl
  for n in 40 400; do
    LD_PRELOAD="$folder/count_copies.so" "$LIPCONV_DEVICE_STEP" large bcop $n 2>&1 > /dev/null | sed "s/^/$n steps: /" | tee -a "$folder/copies.txt"
  done
  LD_PRELOAD="$folder/count_copies.so" "$LIPCONV_COMMAND" train --dataset synthetic $limits --epochs 1 --device cuda --out "$folder/counted" --quiet 2>&1 > /dev/null \
    | sed "s/^/an epoch of 157 steps: /" | tee -a "$folder/copies.txt"
else
  echo "left out: it needs a device, a C compiler and LIPCONV_DEVICE_STEP"
fi
echo "== profile by kernel"
if [ "$device" = cuda ] && command -v ncu > /dev/null && [ -n "${LIPCONV_DEVICE_STEP:-}" ]; then
  # the first step is given kernel by kernel, then it is recorded
  timeout 90 ncu --launch-count 900 --metrics gpu__time_duration.sum --csv "$LIPCONV_DEVICE_STEP" large bcop 2 > "$folder/kernels.csv" 2> "$folder/ncu.txt" || true
  python3 bench/kernel_times.py "$folder/kernels.csv" | tee "$folder/profile.txt" | head -40
else
  echo "left out: it needs a device, ncu on the PATH and LIPCONV_DEVICE_STEP"
fi
echo "results are in $folder"
exit $failed
