"""`python -m dev.cli_docs`: write docs/cli.md from the commands' own help. With --check only compare."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from flywheel.cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
PREFACE = """<!-- Generated from operator/flywheel/cli by `make cli-docs`; do not edit. -->

`kubectl flywheel` needs nothing but your own rights: `view` in a namespace to look, `edit` to pause, resume, abort and retry,
`admin` (or the verbs `approve` on generations and `promote` on rollouts) to approve and promote.

```
pip install '.[cli]'                     # from a checkout; puts kubectl-flywheel on PATH, where kubectl finds it
kubectl flywheel tree -n demo --watch
kubectl flywheel explain generation/companion-2 -n demo
kubectl flywheel lint examples/
```

Completion of `kubectl flywheel <TAB>` comes with kubectl's own (`kubectl completion --help`), that of `kubectl-flywheel` with
`kubectl-flywheel --install-completion`.

"""


def rendered() -> str:
    """The text of the page."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="kubectl flywheel")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text)  # each follows, and its line here is cut short
    return PREFACE + re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def main() -> int:
    """Write, or with --check compare."""
    if "--check" in sys.argv[1:]:
        stale = not PAGE.is_file() or PAGE.read_text() != rendered()
        if stale:
            print("docs/cli.md differs from the commands; run `make cli-docs`", file=sys.stderr)
        return int(stale)
    PAGE.write_text(rendered())
    return 0


if __name__ == "__main__":
    sys.exit(main())
