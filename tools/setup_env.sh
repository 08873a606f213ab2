#!/usr/bin/env bash
# Set up the Python environment; safe to repeat and to interrupt at any time.
#
#   bash tools/setup_env.sh             make or complete the environment .venv of this checkout
#   bash tools/setup_env.sh --active    use the environment that is active now
#
# Progress goes to stderr; the one line on stdout is the path of the environment's Python.
#   PYTHON=...          the Python 3.10 to 3.12 to start from (otherwise looked for)
#   MAX_JOBS=...        compilers that run at once (default: number of CPU cores)
#   MMCV_CUDA_OPS=1     build mmcv's CUDA operators too (needs nvcc; nothing here needs them)
#   CFLAGS=...          flags of the compiler (default: those of Python's own build)
#   XDG_CACHE_HOME=...  parent of the cache of the mmcv build (default: ~/.cache)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PINS="$ROOT/requirements.txt"
pinned() { sed -n "s/^$1==//p" "$PINS"; }
TORCH="$(pinned torch)"
MMCV="$(pinned mmcv)"
CPU_INDEX=https://download.pytorch.org/whl/cpu
NEEDED_MB=6000

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
clock() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

suitable() {  # a working Python 3.10 to 3.12 with venv
    "$1" -c 'import sys, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.10, 3.11 or 3.12 with the module venv; name another, or unset PYTHON to have one looked for"
        "$PYTHON" -c 'import sys; print(sys.executable)'
        return
    fi
    for candidate in python3.11 python3.12 python3.10 python3 python \
            "$HOME"/.pyenv/versions/3.1[012].*/bin/python /usr/bin/python3.1[012]; do
        if suitable "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "no Python 3.10, 3.11 or 3.12 with the module venv found; install one (for example" \
        "'apt-get install python3.11 python3.11-venv') or name it: PYTHON=/path/to/python bash tools/setup_env.sh"
}

# --- steps that finished leave a stamp; a killed step starts again ---------------------------
stamp() { printf '%s/%s' "$STAMPS" "$1"; }
is_done() { [ "$(cat "$(stamp "$1")" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s' "$2" >"$(stamp "$1").tmp" && mv "$(stamp "$1").tmp" "$(stamp "$1")"; }

# explain LOG WHAT: the one line that says why a step failed and what to do
explain() {
    local log="$1" what="$2"
    if grep -qE 'No space left on device|Disk quota exceeded' "$log"; then
        die "$what: the disk is full; free $((NEEDED_MB / 1000)) GB and run the same command again"
    elif grep -qE 'Failed to establish a new connection|name resolution|ConnectTimeout|ReadTimeout|Network is unreachable|ProxyError|Connection (refused|reset)|ConnectionError|incomplete-download' "$log"; then
        die "$what: the package index cannot be reached; check network, proxy or pip config and run the same command again (log: $log)"
    elif grep -qE 'No matching distribution found|Could not find a version' "$log"; then
        die "$what: $(grep -m1 -E 'No matching distribution found.*|Could not find a version.*' "$log" | sed 's/^ERROR: //' | cut -c1-160); check network and pip config (log: $log)"
    elif grep -qE 'Killed|cc1plus.*(killed|terminated)|out of memory' "$log"; then
        die "$what: the compiler ran out of memory; run again with MAX_JOBS=1 (log: $log)"
    fi
    die "$what failed; the last line of the log is: $(grep -v '^ *$' "$log" | tail -1 | cut -c1-160) (log: $log)"
}

# watched WHAT LOG COMMAND...: run a command with its output in a log and a live line on stderr
watched() {
    local what="$1" log="$2" begin=$SECONDS last=-99 pid line every=10
    shift 2
    [ -t 2 ] && every=1
    : >"$log"
    set -m  # a process group of its own, which an interrupt ends as a whole
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    trap 'kill -TERM -- -$pid 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS - begin - last >= every)); then
            last=$((SECONDS - begin))
            line="$what: $(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$log" | tail -1 | sed -E 's/[^0-9]*([0-9]+)\/([0-9]+).*/\1\/\2 objects, /' || true)$(clock "$last")"
            if [ -t 2 ]; then printf '\r\033[K%s' "$line" >&2; else say "$line"; fi
        fi
        sleep 0.3
    done
    [ -t 2 ] && printf '\r\033[K' >&2
    trap - INT TERM
    wait "$pid" || explain "$log" "$what"
    say "$what: done in $(clock $((SECONDS - begin)))"
}

check_disk() {
    local free
    free=$(df -Pm "$1" | awk 'NR == 2 {print $4}')
    ((free >= $2)) || die "too little disk space: $1 has $free MB free, $2 MB are needed; free some and run again"
}

# --- the parts of the set-up -------------------------------------------------------------------
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

install_torch() {
    if "$PY" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$TORCH')" 2>/dev/null; then
        return
    elif has_gpu; then
        "$PY" -m pip install -c "$PINS" "torch==$TORCH"
    elif [ "$(uname -s)" = Darwin ]; then
        "$PY" -m pip install -c "$PINS" "torch==$TORCH"
    else  # '+cpu': the plain name would bring gigabytes of CUDA packages
        "$PY" -m pip install -c "$PINS" "torch==$TORCH+cpu" || {
            echo '--- not in the configured sources; trying PyTorch'"'"'s own index'
            "$PY" -m pip install -c "$PINS" --extra-index-url "$CPU_INDEX" "torch==$TORCH+cpu"
        }
    fi
}

unpack_mmcv() {
    local part="$BUILD.part"
    [ -f "$BUILD/setup.py" ] && return
    rm -rf "$part" "$BUILD" && mkdir -p "$part"
    MMCV_WITH_OPS=1 "$PY" -m pip download --no-cache-dir --no-deps --no-build-isolation \
        --no-binary mmcv "mmcv==$MMCV" -d "$part"
    tar -xzf "$part/mmcv-$MMCV.tar.gz" -C "$part" --strip-components 1
    mv "$part" "$BUILD"
}

# CFLAGS replaces the flags of Python's own build, its -O3 among them: they are repeated here.
compiler_flags() {
    printf '%s -g0' "${CFLAGS:-$("$PY" -c 'import sysconfig; print(sysconfig.get_config_var("CFLAGS") or "-O3 -DNDEBUG")')}"
}

# precompiled_header FLAGS: compile torch's headers once instead of in each of the 77 files. Prints the
# option that includes the result; nothing where that does not work. GCC reads the headers
# themselves where a file needs other flags.
precompiled_header() {
    local cxx="${CXX:-c++}" folder="$BUILD/pch" includes
    "$cxx" --version 2>/dev/null | grep -q 'Free Software Foundation' || return 0
    case "$folder" in *[[:space:]]*) return 0 ;; esac
    if [ ! -f "$folder/torch.h.gch" ]; then  # a new one would make all objects out of date
        mkdir -p "$folder"
        echo '#include <torch/types.h>' >"$folder/torch.h"
        includes="$("$PY" -c 'import sysconfig, torch.utils.cpp_extension as cpp
print(*("-I" + path for path in [*cpp.include_paths(), sysconfig.get_paths()["include"]]))')" || return 0
        # shellcheck disable=SC2086  # lists of words
        "$cxx" $1 -fPIC $includes -std=c++17 -DTORCH_API_INCLUDE_EXTENSION_H \
            -DTORCH_EXTENSION_NAME=_ext -x c++-header "$folder/torch.h" -o "$folder/part" >&2 || return 0
        mv "$folder/part" "$folder/torch.h.gch"
    fi
    printf '%s' "-include $folder/torch.h"
}

# The objects stay in the build folder, so that a build that was killed continues where it was.
compile_mmcv() {
    local visible='' flags
    [ "${MMCV_CUDA_OPS:-0}" = 1 ] && visible="${CUDA_VISIBLE_DEVICES-0}"
    flags="$(compiler_flags)"
    flags="$(precompiled_header "$flags") $flags"
    rm -rf "$BUILD/dist"
    (cd "$BUILD" && CUDA_VISIBLE_DEVICES="$visible" FORCE_CUDA="${MMCV_CUDA_OPS:-0}" MMCV_WITH_OPS=1 \
        CFLAGS="$flags" MAX_JOBS="${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}" \
        PATH="$(dirname "$PY"):$PATH" "$PY" setup.py bdist_wheel)
    mv "$BUILD"/dist/mmcv-*.whl "$WHEELS/"
    rm -rf "$BUILD"
}

# A compiler that can build a torch extension, tried before minutes are spent.
check_compiler() {
    local cxx="${CXX:-c++}" include
    command -v "$cxx" >/dev/null ||
        die "no C++ compiler: '$cxx' not found, and mmcv's operators are built from source; install one (for example 'apt-get install g++') and run again"
    include="$("$PY" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')"
    [ -f "$include/Python.h" ] ||
        die "no Python headers: $include/Python.h not found; install them (for example 'apt-get install python3-dev') and run again"
    echo 'int main() {}' | "$cxx" -std=c++17 -x c++ -fsyntax-only - 2>/dev/null ||
        die "the C++ compiler '$cxx' cannot compile C++17; install g++ 9 or newer, or set CXX, and run again"
}

install_mmcv() {
    local tag cache wheel
    tag="$("$PY" -c 'import sys, platform, torch; print(f"py{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-{platform.machine()}-optimized")')"
    [ "${MMCV_CUDA_OPS:-0}" = 1 ] && tag="$tag-cudaops"
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/mmdet3d_plugin/$tag"
    WHEELS="$cache"
    BUILD="$cache/build-mmcv-$MMCV"
    mkdir -p "$cache" 2>/dev/null || die "the cache folder $cache cannot be made; name another with XDG_CACHE_HOME=/some/folder"
    exec 9>"$cache/lock"  # also held by the compilers of a set-up that was killed
    if command -v flock >/dev/null && ! flock -n 9; then
        say "another mmcv build is running in $cache; waiting for it"
        flock 9
    fi
    wheel="$(find "$cache" -maxdepth 1 -name "mmcv-$MMCV-*.whl" | head -1)"
    if [ -z "$wheel" ]; then
        check_compiler
        check_disk "$cache" 1000
        say "mmcv $MMCV is built once from source (some minutes on 2 cores) and kept in $cache"
        watched 'fetching the mmcv source' "$STAMPS/mmcv-source.log" unpack_mmcv
        watched 'building mmcv ops' "$STAMPS/mmcv-build.log" compile_mmcv
        wheel="$(find "$cache" -maxdepth 1 -name "mmcv-$MMCV-*.whl" | head -1)"
    fi
    exec 9>&-
    watched 'installing mmcv' "$STAMPS/mmcv-install.log" \
        "$PY" -m pip install --no-deps --force-reinstall "$wheel"
}

install_packages() {
    "$PY" -m pip install -r "$PINS" &&
        "$PY" -m pip install --no-deps --no-build-isolation -e "$ROOT"
}

# Seconds, and no import of torch: the pinned versions are there and the package is this checkout.
looks_complete() {
    "$PY" - "$ROOT" <<'PYTHON' 2>/dev/null
import importlib.util
import re
import sys
from importlib.metadata import version
from pathlib import Path

root = Path(sys.argv[1])
for line in (root / 'requirements.txt').read_text().splitlines():
    if match := re.match(r'([\w.-]+)(?:==(\S+))?', line):
        found = version(match[1]).split('+')[0]
        assert match[2] in (None, found)
sys.path = [entry for entry in sys.path if entry not in ('', str(Path.cwd()))]
assert Path(importlib.util.find_spec('mmdet3d_plugin').origin).parents[1] == root
mmcv = Path(importlib.util.find_spec('mmcv').origin).parent
assert list(mmcv.glob('_ext*.so'))
PYTHON
}

# --- main ----------------------------------------------------------------------------------------
case "${1:-}" in
    '') VENV="$ROOT/.venv" ;;
    --active)
        PY="$(command -v python || true)"
        [ -n "$PY" ] && suitable "$PY" && "$PY" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in __import__("os").environ)' ||
            die "--active: no active virtual environment with Python 3.10 to 3.12; activate one, or run without --active"
        VENV="$("$PY" -c 'import sys; print(sys.prefix)')" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_REQUIRE_VIRTUALENV=0 PYTHONNOUSERSITE=1
unset PYTHONPATH
PY="${PY:-$VENV/bin/python}"
STAMPS="$VENV/.setup"
HASH="$(cat "$ROOT"/{tools/setup_env.sh,requirements.txt,setup.py,mmdet3d_plugin/version.py} | cksum | tr ' ' -)"

if is_done all "$HASH" && looks_complete; then
    say "environment: $VENV is complete"
    echo "$PY"
    exit
fi

begin=$SECONDS
if [ ! -x "$PY" ] || { [ "${1:-}" != --active ] && ! is_done venv made; }; then
    base="$(find_python)"
    check_disk "$ROOT" "$NEEDED_MB"
    say "making $VENV with $("$base" --version) ($base)"
    mkdir -p "$VENV" || die "$VENV cannot be made; check the rights of $ROOT"
    "$base" -m venv --clear "$VENV" >&2 || die "$base -m venv failed; install its venv module (for example 'apt-get install python3-venv') or set PYTHON"
    mkdir -p "$STAMPS"
    mark_done venv made
fi
mkdir -p "$STAMPS"
if ! is_done tools "$HASH"; then
    watched 'installing build tools' "$STAMPS/tools.log" "$PY" -m pip install \
        -c "$PINS" 'pip>=23' 'setuptools>=77.0.3' wheel ninja psutil packaging numpy
    mark_done tools "$HASH"
fi
if ! is_done torch "$HASH"; then
    watched "installing torch $TORCH ($(has_gpu && echo CUDA || echo CPU) build)" "$STAMPS/torch.log" install_torch
    mark_done torch "$HASH"
fi
if ! is_done mmcv "$MMCV-$TORCH-optimized"; then
    install_mmcv
    mark_done mmcv "$MMCV-$TORCH-optimized"
fi
watched 'installing the other packages' "$STAMPS/packages.log" install_packages
watched 'checking the imports' "$STAMPS/check.log" "$PY" -c 'import mmcv.ops, mmdet3d.apis'
looks_complete || die "the set-up finished but versions do not agree with requirements.txt; run '$PY -m pip check', or remove $VENV and run again"
mark_done all "$HASH"
say "environment: $VENV is complete ($(clock $((SECONDS - begin))))"
echo "$PY"
