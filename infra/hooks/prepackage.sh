#!/bin/sh
# azd calls this on Linux and macOS. It runs prepackage.py with a Python that has pip.
set -eu
here=$(dirname "$0")
python=$here/../../.venv/bin/python
[ -x "$python" ] || python=$(command -v python3 || command -v python) || {
    echo "ERROR: packaging the function app takes Python 3.11 or newer with pip, and there is no python3" >&2
    exit 1
}
exec "$python" "$here/prepackage.py" "$@"
