"""Earlier releases, as users may have them: chart, operator and its image's recipe.

An archive is made once, when a release is made, and never changed: `git archive --format=tar TAG -- helm/flywheel operator/flywheel
images/operator images/.containerignore requirements/operator.lock ':(exclude)operator/flywheel/cli' | xz -9e`.
`xz -d < v0.tar.xz | git get-tar-commit-id` says which commit it is of.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

HERE = Path(__file__).parent
RELEASES = tuple(sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz")))


def unpack(release: str, into: Path) -> Path:
    """The source tree of a release."""
    tree = into / release
    with tarfile.open(HERE / f"{release}.tar.xz") as archive:
        archive.extractall(tree, filter="data")
    return tree
