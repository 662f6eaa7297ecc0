# Sourced by scripts/demo and scripts/test: a virtual environment with the project installed.
# S2TDPT_VENV names another place for it; S2TDPT_PYTHON another interpreter. $1: extras, such as "[test]".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
python="${S2TDPT_PYTHON:-python3}"
venv="${S2TDPT_VENV:-.venv}"

for tool in "$python" g++ make perl; do
    if ! command -v "$tool" > /dev/null; then
        echo "s2tdpt: error: $tool is missing; expected Python 3.11+, a C++ compiler, make and perl;" \
             "install them (Debian: apt-get install python3-venv g++ make perl)" >&2
        exit 2
    fi
done
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "s2tdpt: error: $("$python" --version) is too old; expected Python 3.11 or newer;" \
         "name one with S2TDPT_PYTHON" >&2
    exit 2
fi

# What is installed is current as long as pyproject.toml and the extras are what they were.
wanted="$(cksum pyproject.toml) $extras"
stamp="$venv/.s2tdpt-installed"
if [ ! -f "$stamp" ] || ! grep -qxF "$wanted" "$stamp"; then
    echo "Setting up $venv ..."
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".$extras"
    echo "$wanted" >> "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
case "$venv" in /*) export PATH="$venv/bin:$PATH" ;; esac
