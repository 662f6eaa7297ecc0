# Sourced by scripts/demo and scripts/test: a virtual environment with everything installed, ready to use.
#
# S2TDPT_VENV names its folder (default: .venv in the project). An environment that is complete is reused as it is;
# one that is not, because a first run was interrupted or a requirement changed, is completed.

fail() {
    echo "s2tdpt: error: $*" >&2
    exit 2
}

# A Python that is new enough, the newest first.
find_python() {
    local name
    for name in ${S2TDPT_PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer was found; expected python3 on PATH; install it or name it in S2TDPT_PYTHON"
}

# Whether the environment holds every requirement of pyproject.toml (and of the extras named) in a fitting version.
is_complete() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" - "$ROOT" "$@" 2>/dev/null <<'PYTHON'
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

root, *extras = sys.argv[1:]
project = tomllib.loads((Path(root) / "pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + [r for e in extras for r in project["optional-dependencies"][e]]
for text in wanted:
    requirement = Requirement(text)
    if not requirement.specifier.contains(version(requirement.name).split("+")[0], prereleases=True):
        sys.exit(1)
version(project["name"])
PYTHON
}

# prepare [extra...]: sets VENV and makes it complete.
prepare() {
    local tool target=.
    for tool in make perl; do
        command -v "$tool" >/dev/null || fail "$tool was not found; the simulator is built with it; install $tool"
    done
    command -v g++ >/dev/null || fail "g++ was not found; the simulator is built with it; install a C++ compiler"
    VENV=${S2TDPT_VENV:-$ROOT/.venv}
    if is_complete "$@"; then
        return
    fi
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV" 2>/dev/null)" ]; then
        fail "$VENV is there and is no virtual environment; expected a free place; name another in S2TDPT_VENV"
    fi
    echo "Preparing the Python environment in $VENV (once, some minutes)"
    if ! [ -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        "$(find_python)" -m venv --clear "$VENV" ||
            fail "cannot create the virtual environment $VENV; expected the venv module and a writable place"
    fi
    [ $# -eq 0 ] || target=".[$(IFS=,; echo "$*")]"
    (cd "$ROOT" && "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e "$target") ||
        fail "pip could not install the requirements; expected a reachable package index; see its message above"
    is_complete "$@" || fail "the environment $VENV is incomplete after installation; delete it and try again"
}
