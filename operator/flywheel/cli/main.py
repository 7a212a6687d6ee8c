"""The commands. Each reads what it needs, lets a pure function say it, and prints.

Exit codes: 0 done · 1 the answer is no (not there, makes no sense, not valid, not healthy) · 2 it could not be asked (usage,
kubeconfig, API server, rights).
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flywheel.cli import acts, collect, render
from flywheel.cli.advice import advice
from flywheel.cli.cluster import Cluster, Where, as_json, ask, connected
from flywheel.cli.completion import flywheel_names
from flywheel.cli.cost import costs
from flywheel.cli.doctor import Patient, examine
from flywheel.cli.errors import REFUSED, UNANSWERED, Problem
from flywheel.cli.explain import explain
from flywheel.cli.kinds import BY_KIND
from flywheel.cli.lineage import ancestry, lineage
from flywheel.cli.lint_files import checked, documents
from flywheel.cli.live import watch as watch_tree
from flywheel.cli.options import Context, Format, Kubeconfig, Namespace, Output, Ref
from flywheel.cli.reading import Body, text
from flywheel.cli.served import moment, served
from flywheel.cli.simulate import Assumptions, drawn, parsed, rates, replayed, sized, svg
from flywheel.cli.status import page
from flywheel.cli.tree import forest
from flywheel.cli.words import short
from flywheel.plan.rollout_verdict import analysis_plan

EVERY = 1.0  # seconds between two looks at what the operator has answered


class Commands(TyperGroup):
    """A problem is a sentence and an exit code, not a traceback."""

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


@app.command()
def pause(ref: Ref, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Pause (spec.suspend: true): a Flywheel starts no lap, runs stop after a checkpoint, a rollout keeps its weights."""
    _act(ref, Where(kubeconfig, context, namespace), acts.pause)


@app.command()
def resume(ref: Ref, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Go on after a pause (spec.suspend: false)."""
    _act(ref, Where(kubeconfig, context, namespace), acts.resume)


@app.command()
def abort(ref: Ref, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Return all users of a Rollout to its baseline now (spec.abort: true). Refused once it is decided otherwise."""
    _act(ref, Where(kubeconfig, context, namespace), acts.abort)


@app.command()
def retry(
    ref: Ref,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Of a Generation: only this stage, even if it had passed, and what depends on it.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try again what has ended badly (annotation modelflywheel.dev/retry); what had passed is not run again. A Flywheel forgets its bad
    laps, and backs off no more."""
    _act(ref, Where(kubeconfig, context, namespace), lambda body: acts.retry(body, now(), stage))


@app.command()
def approve(
    ref: Ref,
    stage: Annotated[
        str | None, typer.Option("--stage", help="The stage that waits, or `rollout`. Default: the only one that does.")
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Say no: the lap ends, and nobody meets its model.")] = False,
    comment: Annotated[str, typer.Option("--comment", help="Why; it is kept with the decision.")] = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Approve, or reject, the result that a Generation waits with. Needs the right `approve` on generations."""

    async def work(cluster: Cluster) -> acts.Act:
        body = await cluster.find(ref)
        act = acts.approve(body, acts.Word(await cluster.whoami(), reject, comment, stage), now())
        if act.patch is not None:
            await cluster.patch(body, act.patch)
        return act

    typer.echo(ask(Where(kubeconfig, context, namespace), work).said)


@app.command()
def promote(
    ref: Ref,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")],
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Give all users a Rollout's candidate now, whatever numbers are missing. Needs the right `promote` on rollouts."""

    async def work(cluster: Cluster) -> acts.Act:
        body = await cluster.find(ref)
        if text(body, "kind") == "Generation" and (rollout := text(body, "status.rollout")):
            body = await cluster.find(f"rollout/{rollout}")
        act = acts.promote(body, await cluster.whoami(), reason)
        if act.patch is not None:
            await cluster.patch(body, act.patch)
        return act

    typer.echo(ask(Where(kubeconfig, context, namespace), work).said)


def _act(ref: str, where: Where, decide: Callable[[Body], acts.Act]) -> None:
    async def work(cluster: Cluster) -> acts.Act:
        body = await cluster.find(ref)
        act = decide(body)
        if act.patch is not None:
            await cluster.patch(body, act.patch)
        return act

    typer.echo(ask(where, work).said)


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


@app.command("gc")
def gc_command(
    ref: Ref,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it nothing is touched.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted, as without --yes.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for the answer; 0 asks and leaves.")] = 600,
    output: Format = Output.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List, or with --yes delete, artifacts and checkpoints of a Flywheel's runs that nothing refers to any more.

    The operator decides what stays, and a pod that has the storage does it: see the concepts, 'Garbage collection'.
    """
    if yes and dry_run:
        raise Problem("--yes deletes and --dry-run does not; give one of them.", 2)

    async def work(cluster: Cluster) -> Any:
        body = await cluster.find(ref)
        token, patch = collect.request(body, yes, now())
        await cluster.patch(body, patch)
        for _ in range(int(timeout / EVERY)):
            body = await cluster.find(f"flywheel/{text(body, 'metadata.name')}")
            if collect.answered(body, token):
                return body
            await asyncio.sleep(EVERY)
        return None

    body = ask(Where(kubeconfig, context, namespace), work)
    if body is None:
        typer.echo(f"Asked; `kubectl flywheel status {ref}` shows the answer (status.collection) once it is there.")
        if timeout:
            raise typer.Exit(REFUSED)
        return
    lines = collect.report(body)
    typer.echo(as_json(body["status"]["collection"]) if output is Output.JSON else "\n".join(lines))


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


_OF_METRIC = "metric=number, such as "
_ASSUMED = "Assumptions"


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
