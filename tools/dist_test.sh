#!/usr/bin/env bash
# Evaluate in several processes:
#   bash tools/dist_test.sh CONFIG CHECKPOINT NUMBER [arguments of tools/test.py]
set -euo pipefail
if [ $# -lt 3 ] || ! [[ "$3" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT NUMBER [arguments of tools/test.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/torchrun.sh"
launch "$3" test.py "$1" "$2" "${@:4}"
