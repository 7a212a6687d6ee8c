"""Write go.mod for building Kubernetes from the Go module proxy: `python3 dev/tools/kubernetes/pin.py v1.34.4`.

k8s.io/kubernetes requires its staging modules at v0.0.0 and points at them with `replace` lines, which Go ignores in a
dependency. So this module states them itself: k8s.io/X v0.0.0 is published as k8s.io/X v0.34.4. Run it only to move to
another version; go.mod and go.sum are committed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)


def upstream_go_mod(version: str) -> str:
    """The go.mod of the wanted Kubernetes version, as the module proxy has it."""
    out = subprocess.run(
        ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{version}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(out.stdout)["GoMod"]).read_text()


def go_mod(version: str, upstream: str) -> str:
    """Our go.mod: the six commands as tools, every staging module pinned, upstream's `go` and `godebug` kept."""
    staging_version = re.sub(r"^v1\.", "v0.", version)
    staging = re.findall(r"^\t(k8s\.io/\S+) v0\.0\.0$", upstream, re.M)
    kept = re.findall(r"^(?:go|godebug) .*$", upstream, re.M)
    lines = ["module modelflywheel.dev/dev/tools/kubernetes", "", *kept, "", "tool ("]
    lines += [f"\tk8s.io/kubernetes/cmd/{command}" for command in COMMANDS]
    lines += [")", "", f"require k8s.io/kubernetes {version}", "", "replace ("]
    lines += [f"\t{module} => {module} {staging_version}" for module in staging]
    return "\n".join([*lines, ")", ""])


def main() -> None:
    if len(sys.argv) != 2 or not re.fullmatch(r"v1\.\d+\.\d+", sys.argv[1]):
        sys.exit("usage: python3 dev/tools/kubernetes/pin.py v1.MINOR.PATCH")
    version = sys.argv[1]
    (HERE / "go.mod").write_text(go_mod(version, upstream_go_mod(version)))
    subprocess.run(["go", "mod", "tidy"], cwd=HERE, check=True)


if __name__ == "__main__":
    main()
