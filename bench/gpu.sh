#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call: tests of the engine on it, training steps beside PyTorch's, as JSON lines.
#
#   bench/gpu.sh [FOLDER]              builds what is missing with cargo; results go to FOLDER (default: target/gpu)
#   bench/gpu.sh --emulated [FOLDER]   the same without a device, on the emulated one: to see that the script runs
#
# With LIPCONV_DEVICE_TESTS and LIPCONV_DEVICE_STEP naming built binaries it needs no Rust: carry them to a machine with a device.
set -euo pipefail
cd "$(dirname "$0")/.."
features=cuda-engine,cuda-emulation
export LIPCONV_CUDA_DEVICE=0
if [ "${1:-}" = --emulated ]; then
  shift
  features=cuda-emulation
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

tests() {
  if [ -n "${LIPCONV_DEVICE_TESTS:-}" ]; then "$LIPCONV_DEVICE_TESTS" engine::cuda
  else cargo test --release -p lipconv --lib --features "$features" engine::cuda; fi
}
step() {
  if [ -n "${LIPCONV_DEVICE_STEP:-}" ]; then "$LIPCONV_DEVICE_STEP" "$@"
  else cargo run --release -q -p lipconv --features "$features" --example device_step -- "$@"; fi
}

echo "== tests of the engine"
tests 2>&1 | tee "$folder/tests.txt" | grep -E '^test |^error'
echo "== milliseconds of a training step"
: > "$folder/steps.jsonl"
if [ -n "${LIPCONV_CUDA_DEVICE:-}" ]; then
  for network in "large bcop" "large bcop lln" "large rko" "large plain" "small bcop" "small plain"; do
    # shellcheck disable=SC2086
    step $network 400 | tee -a "$folder/steps.jsonl"
  done
  for peer in "large-cifar10 plain" "large-cifar10 bcop" "small-mnist plain" "small-mnist bcop"; do
    # shellcheck disable=SC2086
    python3 bench/peer_torch.py step $peer --device cuda --n 20 | tee -a "$folder/steps.jsonl" \
      || echo "left out: PyTorch, $peer"
  done
else
  step small bcop 2 | tee -a "$folder/steps.jsonl"
fi
