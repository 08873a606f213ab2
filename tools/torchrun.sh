# Shared by dist_train.sh and dist_test.sh: launch NUMBER SCRIPT [arguments...]
# starts the tool in NUMBER processes: one per GPU, or on the CPU (gloo) where there is no GPU.
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as in mmdet3d.
# PYTHON names the interpreter; otherwise the active environment's, else the one of .venv.
# torch.distributed.run, which ends without a traceback at Ctrl-C.
TORCHRUN='
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.run import main

try:
    main()
except SignalException as error:
    sys.exit(128 + error.sigval)
'

port_is_free() {
    "$python" - "$1" <<'PYTHON' 2>/dev/null
import socket
import sys

with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('', int(sys.argv[1])))
PYTHON
}

launch() {
    local number="$1" script="$2" tools python where
    shift 2
    tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    python="${PYTHON:-$tools/../.venv/bin/python}"
    if [ -z "${PYTHON:-}" ] && { [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || [ ! -x "$python" ]; }; then
        python=python
    fi
    where=(--standalone)  # one machine, a free port
    if [ -n "${PORT:-}" ] || [ "${NNODES:-1}" != 1 ]; then
        where=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
               --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
    fi
    if [ -n "${PORT:-}" ] && [ "${NODE_RANK:-0}" = 0 ] && ! port_is_free "$PORT"; then
        echo "error: PORT=$PORT is no free port of this machine; name another, or leave PORT out" \
            "where one machine trains" >&2
        exit 2
    fi
    OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" exec "$python" -c "$TORCHRUN" \
        "${where[@]}" --nproc_per_node "$number" "$tools/$script" "$@" --launcher pytorch
}
