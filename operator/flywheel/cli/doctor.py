"""Is the cluster fit for Flywheel, and may you use it? Each check answers ok, failed or not checked, with a sentence and the mend.

Nothing is changed. What the person may not read is not checked, and said so: a doctor who guesses is worse than none.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from flywheel.api.base import API_VERSION, GROUP, VERSION
from flywheel.api.crd import KINDS, crd
from flywheel.cli.cluster import Cluster
from flywheel.cli.reading import Body, dig, items, name, number, text, when
from flywheel.cli.words import ago
from flywheel.ports import ClusterError

OLDEST_MINOR = 29  # of Kubernetes: CEL's optional fields and messageExpression are stable there
LEASE = "flywheel-operator"
SELECTOR = "app.kubernetes.io/name=flywheel,app.kubernetes.io/component=operator"
READS, WRITES = ("get", "list", "watch"), ("create", "patch", "delete")
State = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    name: str
    state: State
    message: str

    def dump(self) -> dict[str, str]:
        """For scripts."""
        return {"name": self.name, "state": self.state, "message": self.message}


@dataclass(frozen=True)
class Patient:
    """What is examined."""

    cluster: Cluster
    operator_namespace: str
    now: dt.datetime

    async def read(self, path: str, query: Sequence[tuple[str, str]] = ()) -> Mapping[str, Any]:
        """A GET."""
        return await self.cluster.api.request("GET", path, query=query)

    async def operators(self) -> list[Body]:
        """The operator's Deployments in its namespace."""
        path = f"/apis/apps/v1/namespaces/{self.operator_namespace}/deployments"
        return items(await self.read(path, [("labelSelector", SELECTOR)]), "items")


async def examine(patient: Patient) -> list[Check]:
    """All checks, side by side."""
    answers = await asyncio.gather(*(_checked(title, check, patient) for title, check in CHECKS))
    return [check for checks in answers for check in checks]


async def _checked(title: str, check: Callable[[Patient], Awaitable[list[Check]]], patient: Patient) -> list[Check]:
    try:
        return await check(patient)
    except ClusterError as error:
        if error.status == 403:
            return [Check(title, "not checked", "you may not read what it takes; ask someone who may, or for the right")]
        return [Check(title, "failed", f"the API server said: {error}")]


async def _server(patient: Patient) -> list[Check]:
    told = await patient.read("/version")
    version, minor = text(told, "gitVersion"), "".join(filter(str.isdigit, text(told, "minor")))
    if minor and int(minor) < OLDEST_MINOR and text(told, "major") == "1":
        return [Check("API server", "failed", f"Kubernetes {version} is too old; use 1.{OLDEST_MINOR} or newer")]
    return [Check("API server", "ok", f"Kubernetes {version}")]


async def _crds(patient: Patient) -> list[Check]:
    """Discovery is for everybody; the CRDs themselves are only for those who may read cluster-wide."""
    try:
        served = {text(one, "name") for one in items(await patient.read(f"/apis/{API_VERSION}"), "resources")}
    except ClusterError as error:
        if error.status != 404:
            raise
        served = set()
    missing = [f"{kind.plural}.{GROUP}" for kind in KINDS if kind.plural not in served]
    if missing:
        mend = "install the chart, or `kubectl apply --server-side -f crds/`"
        return [Check("CRDs", "failed", f"{', '.join(missing)} not served in {VERSION}; {mend}")]
    try:
        stored = await asyncio.gather(
            *(patient.read(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}") for kind in KINDS)
        )
    except ClusterError as error:
        if error.status != 403:
            raise
        return [Check("CRDs", "ok", f"all five kinds are served in {VERSION}; you may not read whether they are of this version")]
    other = [kind.plural for kind, found in zip(KINDS, stored, strict=True) if _schema(found) != _schema(crd(kind))]
    if other:
        mend = "if the cluster is behind: `helm upgrade`, or `kubectl apply --server-side --force-conflicts -f crds/`"
        return [Check("CRDs", "failed", f"{', '.join(other)} differ from those of this command; {mend}, else update the command")]
    return [Check("CRDs", "ok", f"all five kinds are served in {VERSION}, as this command knows them")]


def _schema(definition: Mapping[str, Any]) -> Any:
    return next((dig(one, "schema.openAPIV3Schema") for one in items(definition, "spec.versions") if one.get("name") == VERSION), None)


async def _operator(patient: Patient) -> list[Check]:
    found = await patient.operators()
    if not found:
        where = patient.operator_namespace
        return [
            Check("operator", "failed", f"no operator is installed in namespace {where}; install the chart, or give --operator-namespace")
        ]
    checks = []
    for deployment in found:
        ready, wanted = number(deployment, "status.readyReplicas") or 0, number(deployment, "spec.replicas") or 0
        state: State = "ok" if ready and ready >= wanted else "failed"
        hint = "" if state == "ok" else f"; look at `kubectl -n {patient.operator_namespace} describe deployment {name(deployment)}`"
        checks.append(Check("operator", state, f"{ready:.0f} of {wanted:.0f} pods of {name(deployment)} are ready{hint}"))
    return checks


async def _lease(patient: Patient) -> list[Check]:
    elects = [_setting(deployment, "FLYWHEEL_LEADER_ELECTION") for deployment in await patient.operators()]
    if elects and all(value == "false" for value in elects):
        return [Check("lease", "ok", "not needed: leaderElection is false and one replica works")]
    try:
        lease = await patient.read(f"/apis/coordination.k8s.io/v1/namespaces/{patient.operator_namespace}/leases/{LEASE}")
    except ClusterError as error:
        if error.status != 404:
            raise
        return [Check("lease", "failed", f"no replica has ever taken the lease {LEASE}; read the operator's log")]
    holder, renewed = text(lease, "spec.holderIdentity"), when(lease, "spec.renewTime")
    lasts = dt.timedelta(seconds=number(lease, "spec.leaseDurationSeconds") or 15)
    if not holder or renewed is None or patient.now - renewed > lasts:
        since = f"; it was renewed {ago(renewed, patient.now)}" if renewed else ""
        return [Check("lease", "failed", f"nobody holds the lease {LEASE}: no operator works{since}; read the operator's log")]
    return [Check("lease", "ok", f"held by {holder}, renewed {ago(renewed, patient.now)}")]


def _setting(deployment: Body, variable: str) -> str:
    """An environment variable of the operator."""
    containers = items(deployment, "spec.template.spec.containers")
    return next((text(one, "value") for c in containers for one in items(c, "env") if one.get("name") == variable), "")


async def _storage(patient: Patient) -> list[Check]:
    namespace = patient.cluster.namespace
    flywheels = items(await patient.read(f"/apis/{API_VERSION}/namespaces/{namespace}/flywheels"), "items")
    claims = sorted({text(one, "spec.storage.claimName") for one in flywheels} or {"flywheel-data"})
    return [await _claim(patient, claim) for claim in claims]


async def _claim(patient: Patient, claim: str) -> Check:
    namespace = patient.cluster.namespace
    try:
        found = await patient.read(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    except ClusterError as error:
        if error.status != 404:
            raise
        return Check("storage", "failed", f"claim {claim} is not in namespace {namespace}; create it, with access mode ReadWriteMany")
    modes = dig(found, "spec.accessModes") or []
    if text(found, "status.phase") != "Bound":
        # A claim that waits for its first pod is as it should be.
        return Check("storage", "not checked", f"claim {claim} is {text(found, 'status.phase')}; it binds with its first pod, or never")
    if "ReadWriteMany" not in modes:
        return Check("storage", "failed", f"claim {claim} has {', '.join(modes)}; pods on several nodes need ReadWriteMany")
    return Check("storage", "ok", f"claim {claim} is bound, ReadWriteMany, {text(found, 'status.capacity.storage') or 'of unknown size'}")


async def _prometheus(patient: Patient) -> list[Check]:
    """Through the API server's proxy, which reaches a Service by its name; any other address only pods can try."""
    addresses = {_setting(deployment, "FLYWHEEL_PROMETHEUS_ADDRESS") for deployment in await patient.operators()} - {""}
    if not addresses:
        mend = "set the chart's prometheus.address, or spec.rollout.analysis.prometheus.address in each lap"
        return [Check("Prometheus", "not checked", f"the operator has no default address; {mend}")]
    return [await _answers(patient, address) for address in sorted(addresses)]


async def _answers(patient: Patient, address: str) -> Check:
    url = urlsplit(address)
    host = (url.hostname or "").removesuffix(".cluster.local").removesuffix(".svc").split(".")
    if len(host) > 2 or url.path.strip("/"):
        return Check("Prometheus", "not checked", f"{address} is no Service of this cluster, and only pods can try it")
    service, namespace = host[0], host[1] if len(host) == 2 else patient.operator_namespace
    port = url.port or (443 if url.scheme == "https" else 80)
    scheme = "https:" if url.scheme == "https" else ""
    proxy = f"/api/v1/namespaces/{namespace}/services/{scheme}{service}:{port}/proxy/api/v1/query"
    try:
        answer = await patient.read(proxy, [("query", "count(up)")])
    except ClusterError as error:
        if error.status in (401, 403):
            return Check("Prometheus", "not checked", f"you may not use the proxy to {service} in namespace {namespace}")
        mend = "correct the chart's prometheus.address, or look at its pods; verdicts wait without it"
        return Check("Prometheus", "failed", f"{address} does not answer ({error.status or 'no connection'}); {mend}")
    up = items(answer, "data.result")
    targets = str(up[0]["value"][1]) if up and isinstance(up[0].get("value"), list) else "0"
    return Check("Prometheus", "ok", f"{address} answers and scrapes {targets} targets")


async def _rights(patient: Patient) -> list[Check]:
    """What the person may do with the five kinds in the namespace, by their own word."""
    wanted = [(verb, kind.plural) for verb in READS + WRITES for kind in KINDS]
    allowed = await asyncio.gather(*(_may(patient, verb, plural) for verb, plural in wanted))
    denied = [pair for pair, answer in zip(wanted, allowed, strict=True) if not answer]
    return [
        _right("reading", "tree, status, explain and lineage", [p for p in denied if p[0] in READS], patient.cluster.namespace),
        _right(
            "writing", "pause, resume, abort, retry and kubectl apply", [p for p in denied if p[0] in WRITES], patient.cluster.namespace
        ),
    ]


async def _approvals(patient: Patient) -> list[Check]:
    """Whether the API server sees to it that approvals and promotions are given in one's own name, with a right of their own."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    consequence = "whoever may patch a Generation or a Rollout may approve or promote, in any name"
    try:
        found = items(await patient.read(path, [("labelSelector", "app.kubernetes.io/name=flywheel")]), "items")
    except ClusterError as error:
        if error.status != 404:
            raise
        return [Check("approvals", "not checked", f"this API server has no admission policies (before Kubernetes 1.30): {consequence}")]
    missing = [what for what in ("approvals", "promotions") if not any(name(one).endswith(f"-{what}") for one in found)]
    if missing:
        mend = "install the chart with approvalPolicy.enabled"
        return [Check("approvals", "failed", f"no admission policy guards {' and '.join(missing)}: {consequence}; {mend}")]
    may = await asyncio.gather(_may(patient, "approve", "generations"), _may(patient, "promote", "rollouts"))
    yours = [verb for verb, allowed in zip(("approve", "promote"), may, strict=True) if allowed]
    told = f"you may {' and '.join(yours)}" if yours else "you may neither approve nor promote"
    return [Check("approvals", "ok", f"guarded by the API server; {told} in namespace {patient.cluster.namespace} (ClusterRole admin)")]


def _right(what: str, used_by: str, denied: Sequence[tuple[str, str]], namespace: str) -> Check:
    if not denied:
        return Check(f"rights: {what}", "ok", f"you may use {used_by} in namespace {namespace}")
    listed = ", ".join(f"{verb} {plural}" for verb, plural in denied[:4]) + (f" and {len(denied) - 4} more" if len(denied) > 4 else "")
    if what == "writing":  # looking without touching is a fair way to live
        return Check(
            f"rights: {what}", "ok", f"you may only look at namespace {namespace}, not {listed}; the ClusterRole edit there allows it"
        )
    return Check(f"rights: {what}", "failed", f"you may not {listed} in namespace {namespace}; the ClusterRole view there allows it")


async def _may(patient: Patient, verb: str, plural: str) -> bool:
    attributes = {"namespace": patient.cluster.namespace, "verb": verb, "group": GROUP, "resource": plural}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    answer = await patient.cluster.api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    return dig(answer, "status.allowed") is True


CHECKS: tuple[tuple[str, Callable[[Patient], Awaitable[list[Check]]]], ...] = (
    ("API server", _server),
    ("CRDs", _crds),
    ("operator", _operator),
    ("lease", _lease),
    ("storage", _storage),
    ("Prometheus", _prometheus),
    ("rights", _rights),
    ("approvals", _approvals),
)
