"""The program `kubectl-flywheel`: what all its commands have in common. A problem is a sentence and an exit code."""

from __future__ import annotations

import datetime as dt
from typing import Any

import typer
from typer.core import TyperGroup

from flywheel.cli.errors import Problem


class Commands(TyperGroup):
    """A problem is a sentence and an exit code, not a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Problem as problem:
            typer.echo(str(problem), err=True)
            raise typer.Exit(problem.code) from problem


app = typer.Typer(
    name="kubectl-flywheel",
    cls=Commands,
    help="Look at and steer the models that Flywheel keeps in production, with your own rights.",
    epilog="Exit codes: 0 done, 1 the answer is no, 2 it could not be asked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def now() -> dt.datetime:
    """The time, in UTC."""
    return dt.datetime.now(dt.UTC)
