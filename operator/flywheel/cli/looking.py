"""Commands that look: at the tree, at one object, at what was and what it cost, at the cluster."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from flywheel.cli import render
from flywheel.cli.advice import advice
from flywheel.cli.app import app, now
from flywheel.cli.cluster import Cluster, Where, as_json, ask, connected
from flywheel.cli.completion import flywheel_names
from flywheel.cli.cost import costs
from flywheel.cli.doctor import Patient, examine
from flywheel.cli.errors import REFUSED, Problem
from flywheel.cli.explain import explain
from flywheel.cli.kinds import BY_KIND
from flywheel.cli.lineage import ancestry, lineage
from flywheel.cli.live import watch as watch_tree
from flywheel.cli.options import Context, Format, Kubeconfig, Namespace, Output, Ref
from flywheel.cli.reading import Body, text
from flywheel.cli.served import moment, served
from flywheel.cli.status import page
from flywheel.cli.tree import forest
from flywheel.cli.words import short


@app.command("tree")
def tree_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="FLYWHEEL", help="One Flywheel. Default: everything in the namespace.", autocompletion=flywheel_names),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C; finished laps are one line.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks of --watch.")] = 2.0,
    output: Format = Output.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Flywheels with their champion, laps, stages, runs, reward models and rollouts: phase, percent, time to go, reason."""
    where = Where(kubeconfig, context, namespace)

    async def nodes(cluster: Cluster) -> Any:
        bodies = await cluster.all()
        found = forest(bodies, name)
        if not found:
            missing = f"There is no Flywheel {name}" if name else "There is nothing of Flywheel"
            raise Problem(
                f"{missing} in namespace {cluster.namespace}; choose another with -n, or look with `kubectl get modelflywheel -A`."
            )
        return found

    async def live() -> None:
        async with connected(where) as cluster:
            await watch_tree(lambda: nodes(cluster), every, render.console())

    if watch:
        if output is Output.JSON:
            raise Problem("--watch is for people; leave it out with -o json, or `kubectl get modelflywheel -w -o json`.", 2)
        try:
            asyncio.run(live())
        except KeyboardInterrupt:
            return
    found = ask(where, nodes)
    if output is Output.JSON:
        typer.echo(as_json([node.dump() for node in found]))
        return
    render.console().print(*render.tree(found), sep="\n")


@app.command()
def status(
    ref: Ref, output: Format = Output.TEXT, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """An object on a page: facts, conditions, and the stages, gates, attempts, arms or metrics of its kind."""
    body = ask(Where(kubeconfig, context, namespace), lambda cluster: cluster.find(ref))
    if output is Output.JSON:
        typer.echo(as_json(body))
        return
    render.page(page(body, now()), render.console())


@app.command("explain")
def explain_command(
    ref: Ref, output: Format = Output.TEXT, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Why an object is where it is, what happens next and when, and what you can do about it."""

    async def work(cluster: Cluster) -> list[str]:
        body = await cluster.find(ref)
        return explain(body, await _related(cluster, body), advice(), now())

    lines = ask(Where(kubeconfig, context, namespace), work)
    typer.echo(as_json(lines) if output is Output.JSON else "\n".join(lines))


async def _related(cluster: Cluster, body: Body) -> list[Body]:
    """What an explanation names: the laps that run, the Rollout that asks the users, the run that trains."""
    active = (body.get("status") or {}).get("active") or ()
    names = [("Generation", str(lap)) for lap in active] if text(body, "kind") == "Flywheel" else []
    names += [("Rollout", text(body, "status.rollout")), ("TrainingRun", text(body, "status.trainingRun"))]
    found = await asyncio.gather(*(cluster.get(BY_KIND[kind], name) for kind, name in names if name))
    return [one for one in found if one is not None]


@app.command("lineage")
def lineage_command(
    flywheel: Annotated[str, typer.Argument(metavar="FLYWHEEL", help="Name of the Flywheel.", autocompletion=flywheel_names)],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="What served users then: a day (2026-11-20, UTC) or a moment (2026-11-20T14:30:00Z)."),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", metavar="GENERATION", help="Only this generation and what it descends from, the root first.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    output: Format = Output.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The generations of a Flywheel, oldest first: parent, model, verdict and why, and when each served users.

    Laps, Rollouts and champions that are gone are told from the Flywheel's own memory (status.lineage).
    """
    as_text = not json_output and output is not Output.JSON
    if at is not None and of is not None:
        raise Problem("--at and --of are two questions; ask one at a time.", 2)
    span = moment(at) if at is not None else None

    async def work(cluster: Cluster) -> Any:
        return await cluster.find(f"flywheel/{flywheel.removeprefix('flywheel/')}"), await cluster.every(BY_KIND["Generation"])

    body, laps = ask(Where(kubeconfig, context, namespace), work)
    if span is not None:
        found = served(body, *span, now())
        if not as_text:
            typer.echo(as_json([one.dump() for one in found]))
            return
        rows = [(one.generation, one.role, one.share, short(one.digest) or "-", one.since, one.until or "now") for one in found]
        render.table(rows, render.console(), header=("GENERATION", "ROLE", "USERS", "MODEL", "FROM (UTC)", "UNTIL (UTC)"))
        return
    entries = lineage(body, laps)
    if of is not None and not (entries := ancestry(entries, of)):
        raise Problem(f"Nothing is known of a generation {of} of this Flywheel; leave --of out to list those that are known.")
    if not as_text:
        typer.echo(as_json([entry.dump() for entry in entries]))
        return
    lines = [
        (
            ("* " if entry.champion else "  ") + entry.generation,
            entry.parent or "-",
            short(entry.digest) or "-",
            entry.verdict,
            (entry.ended or entry.started)[:19].replace("T", " "),
            ": ".join(part for part in (entry.reason, entry.why) if part),
        )
        for entry in entries
    ]
    render.table(lines, render.console(), header=("  GENERATION", "PARENT", "MODEL", "VERDICT", "WHEN (UTC)", "WHY"))


@app.command("cost")
def cost_command(
    ref: Ref, output: Format = Output.TEXT, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """What a Flywheel's laps, or one Generation, have cost: GPU and CPU hours and money by lap and stage. Serving is not in it."""

    async def work(cluster: Cluster) -> Any:
        body = await cluster.find(ref)
        return body, await cluster.every(BY_KIND["Generation"]) if text(body, "kind") == "Flywheel" else ()

    bill = costs(*ask(Where(kubeconfig, context, namespace), work))
    if output is Output.JSON:
        typer.echo(as_json(bill.dump()))
        return
    render.table(bill.rows(), render.console(), header=("LAP / STAGE", "VERDICT", "GPU HOURS", "CPU HOURS", "COST"))
    typer.echo("\n".join(bill.words()))


@app.command()
def doctor(
    operator_namespace: Annotated[str, typer.Option("--operator-namespace", help="Where the operator is installed.")] = "flywheel-system",
    output: Format = Output.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """What Flywheel needs of the cluster and you of it: CRDs, operator, lease, storage, Prometheus, your rights."""
    checks = ask(Where(kubeconfig, context, namespace), lambda cluster: examine(Patient(cluster, operator_namespace, now())))
    if output is Output.JSON:
        typer.echo(as_json([check.dump() for check in checks]))
    else:
        render.table([(check.state, check.name, check.message) for check in checks], render.console())
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(REFUSED)
