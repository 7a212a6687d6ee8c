"""Names for the shell's completion, read from the cluster; whoever can't be asked completes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import typer

from flywheel.cli.cluster import Cluster, Where, ask
from flywheel.cli.errors import Problem
from flywheel.cli.kinds import BY_KIND
from flywheel.cli.reading import Body, name, text

PATIENCE = 2.0  # seconds; a shell that hangs is worse than one that knows no names


def object_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """`kind/name` of everything in the namespace."""
    bodies = _asked(ctx, only=None)
    return [ref for ref in (f"{text(body, 'kind').lower()}/{name(body)}" for body in bodies) if ref.startswith(incomplete)]


def flywheel_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of Flywheels."""
    return [name(body) for body in _asked(ctx, only="Flywheel") if name(body).startswith(incomplete)]


def _asked(ctx: typer.Context, *, only: str | None) -> Sequence[Body]:
    async def work(cluster: Cluster) -> Sequence[Body]:
        return await asyncio.wait_for(cluster.every(BY_KIND[only]) if only else cluster.all(), PATIENCE)

    where = Where(*(ctx.params.get(option) for option in ("kubeconfig", "context", "namespace")))
    try:
        return ask(where, work)
    except (Problem, TimeoutError):
        return ()
