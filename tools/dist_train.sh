#!/usr/bin/env bash
# Train in several processes: bash tools/dist_train.sh CONFIG NUMBER [arguments of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ] || ! [[ "$2" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash tools/dist_train.sh CONFIG NUMBER [arguments of tools/train.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/torchrun.sh"
launch "$2" train.py "$1" "${@:3}"
