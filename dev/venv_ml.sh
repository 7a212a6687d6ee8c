#!/usr/bin/env bash
# The trainers' environment on the host, for their tests: the same locks and the same way as images/ml.
set -euo pipefail
venv=$1
echo "installing torch and the trainers' libraries (about 4 minutes, once): $venv"
rm -rf "$venv" && python3 -m venv "$venv"
export PIP_CACHE_DIR="${FLYWHEEL_CACHE:-$HOME/.cache/flywheel}/pip"
"$venv/bin/pip" install -q --no-deps torch==2.13.0
"$venv/bin/pip" install -q --no-deps --require-hashes -r requirements/ml.lock
"$venv/bin/pip" install -q --no-deps --require-hashes -r requirements/test.lock
"$venv/bin/python" images/ml/stub_cuda.py "$venv/lib/python3.11/site-packages"
