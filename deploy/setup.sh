#!/bin/sh
# Make .venv and install this project into it, editable, with the extras named:
#     deploy/setup.sh local        what `make demo` needs (no torch)
#     deploy/setup.sh dev          what `make test` needs
#     deploy/setup.sh --find       only print the Python that would be used
#     deploy/setup.sh --list       only print each tested version that is here, and its Python
# VENV=.venv-3.13 chooses the folder, PYTHON=/path/to/python the interpreter. The releases are those
# of constraints.txt; CONSTRAINTS= (empty) takes the newest that pyproject.toml allows. uv is used for
# speed where it works, else pip.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS-constraints.txt}

fits() { # fits PYTHON FIRST-VERSION FIRST-VERSION-TOO-NEW
    "$1" -c "import sys, venv, ensurepip; sys.exit(not $2 <= sys.version_info < $3)" \
        >/dev/null 2>&1
}

find_python() {
    for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if fits "$python" "(3, 11)" "(3, 14)"; then echo "$python"; return 0; fi
    done
    for python in ${PYTHON:-} python3 python; do # newer than any we have tested with
        if fits "$python" "(3, 11)" "(4, 0)"; then echo "$python"; return 0; fi
    done
    echo "OneBar needs Python 3.11 or newer with its venv module, and found none" >&2
    echo "(tried: ${PYTHON:+$PYTHON, }python3, python3.13, python3.12, python3.11)." >&2
    echo "On Debian or Ubuntu: apt install python3 python3-venv. Elsewhere install a newer" >&2
    echo "Python, or name one: make PYTHON=/path/to/python3.12 demo" >&2
    return 1
}

list_pythons() {
    for minor in 11 12 13; do
        for python in "python3.$minor" python3 \
            "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor".*/bin/python; do
            if fits "$python" "(3, $minor)" "(3, $minor + 1)"; then
                echo "3.$minor $python"
                break
            fi
        done
    done
}

case "${1:-}" in
--find) find_python; exit ;;
--list) list_pythons; exit ;;
esac
extra=${1:?"usage: deploy/setup.sh local|dev"}

if ! "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    echo "Making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
fi
if [ -n "$CONSTRAINTS" ] && fits "$VENV/bin/python" "(3, 14)" "(4, 0)"; then
    echo "$CONSTRAINTS was not made for a Python this new: taking the newest releases"
    CONSTRAINTS=
fi
pip="$VENV/bin/python -m pip install --quiet --disable-pip-version-check"

install_with_uv() {
    # uv does not read pip's own configuration: where that names another index, use pip.
    case "$("$VENV/bin/python" -m pip config list)" in *index*) return 1 ;; esac
    $pip ${CONSTRAINTS:+-c "$CONSTRAINTS"} uv || return 1
    UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} UV_LINK_MODE=${UV_LINK_MODE:-copy} \
        "$VENV/bin/python" -m uv pip install --quiet --python "$VENV/bin/python" -e ".[$extra]" "$@"
}

if [ -n "$CONSTRAINTS" ]; then
    set -- -c "$CONSTRAINTS"
    echo "Installing OneBar and what it needs (.[$extra], releases of $CONSTRAINTS)"
else
    set -- --upgrade
    echo "Installing OneBar and what it needs (.[$extra], newest releases)"
fi
if ! install_with_uv "$@"; then
    echo "Installing with pip instead of uv"
    $pip -e ".[$extra]" "$@"
fi
touch "$VENV/.installed-$extra"
if [ "$extra" = dev ]; then touch "$VENV/.installed-local"; fi
