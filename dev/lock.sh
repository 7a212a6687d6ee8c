#!/usr/bin/env bash
# Resolve pyproject.toml into hash-pinned lock files that name no index.
set -euo pipefail
uv=(uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 pyproject.toml)
"${uv[@]}" --extra operator -o requirements/operator.lock
"${uv[@]}" --extra collector -o requirements/collector.lock
"${uv[@]}" --extra operator --extra collector --extra cli --extra dev -o requirements/dev.lock
"${uv[@]}" --extra test -o requirements/test.lock
