#!/usr/bin/env bash
# From an empty machine to a distilled camera-only student; arguments go to tools/quickstart.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$(bash tools/setup_env.sh)"
PATH="$(dirname "$python"):$PATH" exec "$python" tools/quickstart.py "$@"
