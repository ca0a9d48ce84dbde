#!/usr/bin/env bash
# What does one GPU do? At most ten minutes, one JSON line per case.
#
#   bash benchmarks/gpu.sh [--smoke] [DATA_DIR] > gpu.jsonl
#
# --smoke: tiny cases on the CPU. PYTHON names another interpreter; PFL_PYTHON
# one with pfl-research and a GPU build of PyTorch, for its side of the CIFAR-10
# row. A part that fails or takes longer than its share of the time says so in a
# line of its own, and the next one runs; the exit code is then 1.
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python}
SMOKE=()
if [ "${1:-}" = --smoke ]; then
  SMOKE=(--smoke)
  shift
  export JAX_PLATFORMS=cpu
fi
DATA=${1:-}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
# Cases in processes of their own share the card.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
failed=0

full() { [ ${#SMOKE[@]} = 0 ]; }

# part NAME SECONDS COMMAND...: runs one part, whatever becomes of the others.
part() {
  local name=$1 seconds=$2 started=$SECONDS code
  shift 2
  full || seconds=0  # without a limit
  echo "gpu: $name, at most $seconds s" >&2
  timeout --kill-after=10 "$seconds" "$@"
  code=$?
  if [ $code != 0 ]; then
    failed=1
    printf '{"benchmark": "gpu", "part": "%s", "failed": true, ' "$name"
    printf '"exit_code": %d, "seconds": %d}\n' $code $((SECONDS - started))
  fi
}

# The card: nothing below means anything without one.
if full; then
  "$PYTHON" - <<'CARD' || exit 2
import sys
import jax
from benchmarks import common
if jax.default_backend() == 'cpu':
  sys.exit('gpu: JAX finds no accelerator; --smoke tries all parts on the CPU')
common.emit({'benchmark': 'gpu', 'part': 'card'})
CARD
  rounds=1500 product=8192 clients=64 repeats=10 fleet=131072 many=240
  seeds=8 rates=4 steps=20 together=all
else
  rounds=2 product=64 clients=8 repeats=2 fleet=64 many=8
  seeds=2 rates=2 steps=2 together=one
fi

# The set-up's own length with XLA's convolutions, and a part of it with the
# products that the CPU's figures are from.
part cifar10 120 "$PYTHON" -m benchmarks.peers.public_relief "${SMOKE[@]}" \
  --setup=pfl_cifar10 --plain --layout=$together --devices=1 --rounds=$rounds \
  --product=$product
part cifar10_products 50 "$PYTHON" -m benchmarks.peers.public_relief \
  "${SMOKE[@]}" --setup=pfl_cifar10 --layout=$together --devices=1 \
  --rounds=$((rounds / 10 + 1)) --product=$product
if [ -n "${PFL_PYTHON:-}" ]; then  # beyond the ten minutes
  part cifar10_pfl 100 "$PFL_PYTHON" -m benchmarks.peers.public_pfl \
    "${SMOKE[@]}" --setup=pfl_cifar10 --rounds=$((rounds / 10 + 1))
fi
for layout in one block:8 all; do
  part "sensor_$layout" 40 "$PYTHON" -m benchmarks.roofline "${SMOKE[@]}" \
    --workload=sensor --layout=$layout --devices=1 --clients=$clients \
    --repeats=$repeats --size=$product
done
part dsads_layouts 80 "$PYTHON" -m benchmarks.layouts "${SMOKE[@]}" \
  --clients=$many --methods=relief --layouts=one@1,block:8@1,all@1 \
  --repeats=$repeats ${DATA:+--data_dir="$DATA"}
part lora_cached 40 "$PYTHON" -m benchmarks.roofline "${SMOKE[@]}" \
  --workload=lora_cached --layout=all --devices=1 --clients=$clients \
  --repeats=$repeats --size=$product
part transformer_lora 50 "$PYTHON" -m benchmarks.roofline "${SMOKE[@]}" \
  --workload=transformer_lora --layout=all --devices=1 --clients=$clients \
  --repeats=$repeats --size=$product
part sweep 70 "$PYTHON" -m benchmarks.sweep_throughput "${SMOKE[@]}" \
  --devices=1 --seeds=$seeds --rates=$rates --rounds=$steps
part devices 60 "$PYTHON" -m benchmarks.clients_scaling "${SMOKE[@]}" \
  --clients=$fleet --turns=1 --repeats=3
exit $failed
