"""`kubectl flywheel <TAB>`: kubectl asks the program kubectl_complete-flywheel, and wants a line a word and a last one `:4`."""

from __future__ import annotations

import os
import sys

from flywheel.cli.main import app

NO_FILES = ":4"  # cobra's directive: don't offer file names


def main() -> None:
    """Ask typer's completion for bash, whose answer has the same form."""
    words = sys.argv[1:]
    asked = {
        "_KUBECTL_FLYWHEEL_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["kubectl-flywheel", *words]),
        "COMP_CWORD": str(len(words)),
    }
    os.environ.update(asked)
    try:
        app(args=[], prog_name="kubectl-flywheel")
    finally:
        print(NO_FILES)
