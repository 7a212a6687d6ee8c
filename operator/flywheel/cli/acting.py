"""Commands that ask for something: each writes one wish into an object, and the operator does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import typer

from flywheel.cli import acts, collect
from flywheel.cli.app import app, now
from flywheel.cli.cluster import Cluster, Where, as_json, ask
from flywheel.cli.errors import REFUSED, Problem
from flywheel.cli.options import Context, Format, Kubeconfig, Namespace, Output, Ref
from flywheel.cli.reading import Body, text

EVERY = 1.0  # seconds between two looks at what the operator has answered


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
