#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call: tests on it, steps and forward passes beside PyTorch's, a profile by kernel, a
# short training.  Results go to a folder as text and as JSON; a table is printed at the end.
#
#   bench/gpu.sh [FOLDER]              builds what is missing with cargo; FOLDER is target/gpu by default
#   bench/gpu.sh --emulated [FOLDER]   the same on the emulated device, small: to see that the script runs
#
# It needs no Rust where these name built binaries, for a machine with a device and no compiler:
#   LIPCONV_DEVICE_TESTS   the unit tests of the crate lipconv      (cargo test --release -p lipconv --lib --features cuda,cuda-emulation --no-run)
#   LIPCONV_DEVICE_STEP    its example device_step                  (cargo build --release -p lipconv --features cuda,cuda-emulation --example device_step)
#   LIPCONV_COMMAND        the command                              (cargo xtask cuda)
set -euo pipefail
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
tests 2>&1 | tee "$folder/tests.txt" | grep -E '^test |^error'
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
echo "$kinds" | tr '|' '\n' | while read -r words; do
  # shellcheck disable=SC2086
  step $words $steps < /dev/null | tee -a "$folder/steps.jsonl"
done
echo "== the command: steps and forward passes, one read in each"
for what in step infer; do
  # shellcheck disable=SC2086
  command_line bench $what --device "$device" --net $networks $bench $peer --json "$folder/bench-$what.json"
done
echo "== a short training"
rm -rf "$folder/run"
limits="--train-limit 20 --test-limit 20 --batch-size 8"
if [ "$device" = cuda ]; then limits="--train-limit 20000 --test-limit 2000"; fi
# shellcheck disable=SC2086
command_line train --dataset synthetic $limits --epochs 2 --device "$device" --out "$folder/run" --quiet
echo "== profile by kernel"
if [ "$device" = cuda ] && command -v nsys > /dev/null && [ -n "${LIPCONV_DEVICE_STEP:-}" ]; then
  nsys profile --force-overwrite=true --cuda-graph-trace=node -o "$folder/step" "$LIPCONV_DEVICE_STEP" large bcop 40 > /dev/null
  nsys stats --force-export=true --report cuda_gpu_kern_sum --report cuda_gpu_mem_size_sum --format csv "$folder/step.nsys-rep" \
    | tee "$folder/profile.csv" | head -40
else
  echo "left out: it needs a device, nsys on the PATH and LIPCONV_DEVICE_STEP"
fi
echo "results are in $folder"
