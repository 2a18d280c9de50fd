# Sourced by the other scripts: makes .venv where it is absent and installs the package with extras into it.
#
#   environment EXTRA...      afterwards $python is the interpreter of .venv
#   kerashub                  adds KerasHub to it, for Python 3.11 or newer
#   serving_api               adds TensorFlow Serving's own messages and stubs to it, which tests compare with
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

has() { "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)' "$1"; }

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
    if ! has tensorflow; then
        extras="${KXAI_TENSORFLOW:-cpu},$extras"
    fi
    say "installing kxai[$extras] into .venv (takes minutes the first time)"
    "$python" -m pip install -qq --disable-pip-version-check --editable ".[$extras]" ||
        fail "pip could not install kxai[$extras] for $("$python" --version). Offline, or a Python without TensorFlow?"
    echo "$sum" >"$stamp"
}

kerashub() {
    if has keras_hub || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        return
    fi
    say "installing KerasHub into .venv"
    # Without its dependencies, because tensorflow-text brings a second TensorFlow, which overwrites files of the first.
    # Only tokenizers and presets use it, and they import it when they are made; what the models need follows by name.
    "$python" -m pip install -qq --disable-pip-version-check "kagglehub!=1.0.1" regex tokenizers &&
        "$python" -m pip install -qq --disable-pip-version-check --no-deps keras-hub==0.32.0 ||
        fail "pip could not install KerasHub. Offline?"
}

serving_api() {
    if has tensorflow_serving; then
        return
    fi
    say "installing tensorflow-serving-api into .venv"
    # Without its dependencies: it requires the distribution "tensorflow", which overwrites files of tensorflow-cpu.
    "$python" -m pip install -qq --disable-pip-version-check --no-deps tensorflow-serving-api ||
        fail "pip could not install tensorflow-serving-api. Offline?"
}
