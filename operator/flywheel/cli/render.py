"""Text on the terminal: trees, pages and tables by rich; colours only where a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flywheel.cli.status import Section
from flywheel.cli.tree import Node

GOOD = {"Serving", "Promoted", "Succeeded", "Ready", "Passed", "Completed", "Stable", "Proven", "NonInferior", "ok"}
BAD = {"Failed", "RolledBack", "Rejected", "Held", "Degraded", "Reject", "Hold", "Harm", "failed"}
BUSY = {"Running", "Training", "RollingOut", "Progressing", "Preparing", "Promoting", "RollingBack", "Retrying", "Watching", "Starting"}


def console() -> Console:
    """Made anew for each command, so that it writes to what is stdout then; pipes get whole lines."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=4096)


def styled(word: str) -> Text:
    """A phase in its colour."""
    return Text(word, style="green" if word in GOOD else "red" if word in BAD else "yellow" if word in BUSY else "dim")


def tree(nodes: Sequence[Node]) -> list[Tree]:
    """One tree a root."""
    return [_tree(node) for node in nodes]


def _tree(node: Node) -> Tree:
    grown = Tree(_line(node))
    for child in node.children:
        grown.children.append(_tree(child))
    return grown


def _line(node: Node) -> Text:
    line = Text.assemble((f"{node.kind} ", "dim"), (node.name, "bold"), no_wrap=True, overflow="ellipsis")
    if node.phase:
        line.append("  ").append_text(styled(node.phase))
    return line.append(f"  {node.words()}" if node.words() else "")


def page(sections: Sequence[Section], out: Console) -> None:
    """A status page: headings with rows below each other."""
    for index, section in enumerate(sections):
        if index:
            out.print()
        out.print(f"[bold]{escape(section.heading)}[/bold]")
        table(section.rows, out)


def table(rows: Sequence[Sequence[str]], out: Console, *, header: Sequence[str] = ()) -> None:
    """Rows in columns; the last one takes the room that is left."""
    grid = Table(box=None, show_header=bool(header), pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    width = max((len(row) for row in rows), default=len(header))
    for index in range(width):
        grid.add_column(header[index] if index < len(header) else "", overflow="fold")
    for row in rows:
        grid.add_row(*(styled(cell) if cell in GOOD | BAD | BUSY else Text(cell) for cell in row))
    if out.is_terminal:
        out.print(grid)
        return
    with out.capture() as captured:
        out.print(grid)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), file=out.file)  # a pipe wants no padding
