"""`python -m dev.crds`: write the CRDs of `flywheel.api` to crds/ and to the Helm chart. With --check only compare."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from flywheel.api.crd import crds

REPOSITORY = Path(__file__).resolve().parents[1]
DIRECTORIES = (REPOSITORY / "crds", REPOSITORY / "helm" / "flywheel" / "crds")
HEADER = "# Generated from operator/flywheel/api by `make crds`; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Plain YAML without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rendered() -> dict[str, str]:
    """The text of every CRD file by its name."""
    return {name: HEADER + yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140) for name, body in crds().items()}


def drift() -> list[str]:
    """Files that differ from what the models say."""
    wanted = rendered()
    return [
        str(directory.relative_to(REPOSITORY) / name)
        for directory in DIRECTORIES
        for name in sorted({*wanted, *(path.name for path in directory.glob("*.yaml"))})
        if not (directory / name).is_file() or (directory / name).read_text() != wanted.get(name)
    ]


def write() -> None:
    """Write all files and remove those of kinds that are no more."""
    wanted = rendered()
    for directory in DIRECTORIES:
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob("*.yaml"):
            if stale.name not in wanted:
                stale.unlink()
        for name, text in wanted.items():
            (directory / name).write_text(text)


def main() -> int:
    """Write, or with --check compare."""
    if "--check" in sys.argv[1:]:
        stale = drift()
        if stale:
            print("differ from operator/flywheel/api; run `make crds`: " + ", ".join(stale), file=sys.stderr)
        return 1 if stale else 0
    write()
    for name, text in rendered().items():
        print(f"{name}: {len(text.encode()) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
