#!/usr/bin/env bash
# Every figure of a GPU in docs/performance.md, on one CUDA GPU, in some minutes: FOLDER/gpu.json and FOLDER/gpu.md.
#   bash scripts/gpu.sh FOLDER            # actmax and its extra `ray` installed; nanoGCG where it is to be set beside
#   bash scripts/gpu.sh FOLDER --small    # the same on a CPU and a tiny random model: does the script itself work?
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
exec "${PYTHON:-$python}" "$here/gpu.py" "$@"
