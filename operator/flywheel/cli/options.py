"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flywheel.cli.completion import object_names

_WHERE = "Which cluster"


class Output(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", help="Kubeconfig file. Default: KUBECONFIG, else ~/.kube/config.", rich_help_panel=_WHERE),
]
Context = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig. Default: its current one.", rich_help_panel=_WHERE)
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace. Default: the context's, else `default`.", rich_help_panel=_WHERE)
]
Format = Annotated[Output, typer.Option("--output", "-o", help="`json` for scripts.")]
Ref = Annotated[
    str,
    typer.Argument(
        metavar="KIND/NAME",
        help="An object, such as `generation/companion-2`; the kind may be short (`fwgen`), or left out if the name is one kind's only.",
        autocompletion=object_names,
    ),
]
