"""`tree --watch`: the tree again and again, finished laps on one line, so that what moves is on the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.cli import render
from flywheel.cli.errors import Problem
from flywheel.cli.tree import Node


def folded(nodes: Sequence[Node]) -> list[Node]:
    """The tree without the insides of laps that have ended."""
    return [replace(node, children=[] if _ended(node) else folded(node.children)) for node in nodes]


def _ended(node: Node) -> bool:
    return node.kind == "Generation" and node.phase in TERMINAL_GENERATION_PHASES


async def watch(look: Callable[[], Awaitable[Sequence[Node]]], every: float, out: Console) -> None:
    """Look until Ctrl-C. The first look must succeed; later an API server that is away for a while is waited for."""
    nodes, trouble = await look(), ""
    with Live(console=out, auto_refresh=False) as screen:
        while True:
            shown = Group(*render.tree(folded(nodes)), *([Text(trouble, style="red")] if trouble else []))
            if out.is_terminal:
                screen.update(shown, refresh=True)
            else:  # Live would keep it all to the end
                out.print(shown)
            await asyncio.sleep(every)
            try:
                nodes, trouble = await look(), ""
            except Problem as problem:
                trouble = str(problem)
