#!/usr/bin/env bash
# Set up the environment and run the tests; arguments go to pytest, e.g. `-k resume` or a file.
# They run in one process per core, at most four; TEST_WORKERS sets another number, `-n 0` none.
# BEV_REAL_DATA names a folder with real data; tests that need it are skipped without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="$(bash tools/setup_env.sh)"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"  # waiting threads must not take the cores of other tests
PATH="$(dirname "$python"):$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
    "$python" -m pytest -q --durations=15 -n "${TEST_WORKERS:-logical}" --maxprocesses 4 \
    --dist worksteal "$@"
