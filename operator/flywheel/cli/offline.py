"""Commands that need no cluster: objects are checked, experiments are sized and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.app import app
from flywheel.cli.cluster import as_json
from flywheel.cli.errors import REFUSED, UNANSWERED, Problem
from flywheel.cli.lint_files import checked, documents
from flywheel.cli.options import Format, Output
from flywheel.cli.simulate import Assumptions, drawn, parsed, rates, replayed, sized, svg
from flywheel.plan.rollout_verdict import analysis_plan

_OF_METRIC = "metric=number, such as "
_ASSUMED = "Assumptions"


@app.command("lint")
def lint_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="YAML or JSON files, directories of such, or - for stdin.")],
    output: Format = Output.TEXT,
) -> None:
    """Validate objects without a cluster: types, bounds, spelling, and every rule of the CRDs, with field, value and mend.

    What it can't check offline: whether names that are referred to exist, whether data and models are there and have their
    digests, `parameters` of a method (the trainer does, with exit code 64) and `podTemplate`, cron expressions and time zones
    beyond their form, and changes that are refused because of the stored object (such as another spec.method).
    """
    report = checked(files)
    if output is Output.JSON:
        typer.echo(as_json(report.dump()))
    else:
        typer.echo("\n".join(report.lines()))
    if report.findings:
        raise typer.Exit(REFUSED)


@app.command("simulate")
def simulate_command(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="YAML or JSON of a Rollout, or - for stdin.")] = None,
    users_per_day: Annotated[
        float | None, typer.Option("--users-per-day", min=0, help="New users of the service a day.", rich_help_panel=_ASSUMED)
    ] = None,
    lift: Annotated[
        list[str] | None,
        typer.Option("--lift", help=f"{_OF_METRIC}depth=0.1. Default: 0.05 of each Success metric.", rich_help_panel=_ASSUMED),
    ] = None,
    mean: Annotated[
        list[str] | None, typer.Option("--mean", help=f"Of the control's users, {_OF_METRIC}breadth=0.4.", rich_help_panel=_ASSUMED)
    ] = None,
    depth_cv: Annotated[
        float, typer.Option("--depth-cv", min=0.01, help="Standard deviation of depth / mean.", rich_help_panel=_ASSUMED)
    ] = 1.5,
    explained: Annotated[
        float, typer.Option("--explained", min=0, max=0.99, help="Share of variance that CUPED takes away.", rich_help_panel=_ASSUMED)
    ] = 0.0,
    power: Annotated[float, typer.Option("--power", min=0.5, max=0.999, help="Chance of a promotion that is wanted.")] = 0.8,
    runs: Annotated[int, typer.Option("--runs", min=0, max=100_000, help="Simulated experiments for each error rate; 0: none.")] = 400,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulation.")] = 1,
    plot: Annotated[Path | None, typer.Option("--plot", help="SVG file to write: chance by users a slice.")] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="A Rollout with a decision, or a recording; decided by its own plan, or by FILE's.")
    ] = None,
    output: Format = Output.TEXT,
) -> None:
    """Size an experiment before it starts and refuse one without power; or replay one that was. No cluster is asked.

    Exit code 1: the plan has less than the wanted chance, or a replayed decision isn't the stored one.
    """
    try:
        rollout = parsed(_only(file)) if file else None
        if replay:
            _replay(replay, rollout, output)
            return
        if rollout is None or users_per_day is None:
            raise Problem("Name the file of a Rollout and --users-per-day, or a recording with --replay.", UNANSWERED)
        lifts = _numbers(lift) or {
            m.name: 0.05 if m.direction == "Increase" else -0.05 for m in rollout.spec.metrics if m.role == "Success"
        }
        sizing = sized(rollout, Assumptions(users_per_day, lifts, _numbers(mean), depth_cv, explained, power))
        effects = (("no effect", 0.0), ("the lift", 1.0), ("its opposite", -1.0)) if runs and sizing.users else ()
        found = [rates(sizing, name, factor, runs, seed) for name, factor in effects]
        if plot:
            plot.write_text(svg(sizing, power), encoding="utf-8")
    except (ValueError, OSError) as error:
        raise Problem(f"{error}", UNANSWERED) from error
    if output is Output.JSON:
        typer.echo(as_json(sizing.dump() | {"simulated": [one.dump() for one in found]}))
    else:
        typer.echo("\n".join((*sizing.lines, "", *drawn(sizing, power), "")))
        for one in found:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in one.outcomes.items())
            typer.echo(f"{one.name + ':':14} {shares}; decided on day {one.median_day} (median), {one.p90_day} (p90); {runs} simulated")
    if not sizing.powered:
        raise typer.Exit(REFUSED)


def _replay(path: Path, rollout: Any, output: Output) -> None:
    again = replayed(_only(path), analysis_plan(rollout) if rollout else None)
    typer.echo(as_json(again.dump()) if output is Output.JSON else "\n".join(again.lines()))
    if not again.same:
        raise typer.Exit(REFUSED)


def _only(file: Path) -> Any:
    found = documents(file)
    if len(found) != 1:
        raise Problem(f"{file} has {len(found)} documents; one is expected.", UNANSWERED)
    return found[0]


def _numbers(pairs: list[str] | None) -> dict[str, float]:
    """metric=number, as often as given."""
    found = {}
    for pair in pairs or []:
        name, _, number = pair.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError as error:
            raise ValueError(f"'{pair}' is not {_OF_METRIC}breadth=0.05") from error
    return found
