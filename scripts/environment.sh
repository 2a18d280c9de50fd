# Sourced by the other scripts: makes .venv where it is absent and installs the package with extras into it.
#
#   environment EXTRA...      afterwards $python is the interpreter of .venv
#
# PYTHON            interpreter that makes .venv (otherwise python3, or the first of 3.13 to 3.10 that is found)
# KXAI_TENSORFLOW   which TensorFlow: cpu (default), gpu, or tensorflow; one that is installed already stays

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python

say() { printf '%s\n' "-- $*"; }
fail() { printf '%s\n' "error: $*" >&2; exit 1; }

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || fail "PYTHON=$PYTHON does not run or is older than Python 3.10."
        echo "$PYTHON"
        return
    fi
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "found no Python 3.10 or newer. Install one, or name it: PYTHON=/path/to/python3 $0"
}

make_venv() {
    if [ -d .venv ]; then
        suits "$python" || fail ".venv has no working Python 3.10 or newer. Remove the folder and try again."
        return
    fi
    local base
    base=$(find_python)
    say "making .venv with $("$base" --version)"
    # A half-made folder would be taken for a finished one next time.
    if ! "$base" -m venv .venv; then
        rm -rf .venv
        fail "$base cannot make a virtual environment (on Debian: apt install python3-venv)."
    fi
}

has_tensorflow() {
    "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("tensorflow") is None)'
}

environment() {
    make_venv
    # Nothing is left to do if the same extras were installed from the same metadata before.
    local extras stamp sum
    extras=$(IFS=,; echo "$*")
    stamp=".venv/kxai-installed-${extras//,/-}"
    sum=$(cat setup.cfg pyproject.toml | cksum)
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
        return
    fi
    if ! has_tensorflow; then
        extras="${KXAI_TENSORFLOW:-cpu},$extras"
    fi
    say "installing kxai[$extras] into .venv (takes minutes the first time)"
    "$python" -m pip install -qq --disable-pip-version-check --editable ".[$extras]" ||
        fail "pip could not install kxai[$extras] for $("$python" --version). Offline, or a Python without TensorFlow?"
    echo "$sum" >"$stamp"
}
