"""The API server as the person at the keyboard sees it: their kubeconfig, their namespace, their rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.aio import config
from kubernetes.aio.config.config_exception import ConfigException

from flywheel.adapters.kube_api import KubeApi, kubeconfig_path, load_configuration
from flywheel.api.base import API_VERSION
from flywheel.api.crd import KINDS, Kind
from flywheel.cli.errors import UNANSWERED, Problem, problem
from flywheel.cli.kinds import kind_named, path
from flywheel.cli.reading import Body, text, title
from flywheel.ports import ClusterError

PAGE = "500"  # objects a request, so that a large namespace comes in pieces
T = TypeVar("T")


@dataclass(frozen=True)
class Where:
    """Which cluster and namespace a command is about, as it was typed."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True)
class Cluster:
    """One API server and one namespace."""

    api: KubeApi
    namespace: str

    async def find(self, wanted: str) -> Body:
        """The object that `KIND/NAME`, or a name that only one kind has, stands for."""
        word, slash, name = wanted.partition("/")
        kind = kind_named(word)
        if not slash:
            return await self._find_any(wanted)
        if kind is None:
            raise Problem(f"'{word}' is no kind of Flywheel; write one of {', '.join(k.name.lower() for k in KINDS)}.", UNANSWERED)
        found = await self.get(kind, name)
        if found is None:
            listing = f"kubectl get {kind.plural}.modelflywheel.dev -n {self.namespace}"
            raise Problem(f"There is no {kind.name} {name} in namespace {self.namespace}; `{listing}` lists them.")
        return found

    async def _find_any(self, name: str) -> Body:
        found = [body for body in await asyncio.gather(*(self.get(kind, name) for kind in KINDS)) if body is not None]
        if not found:
            raise Problem(
                f"Nothing is named {name} in namespace {self.namespace}; `kubectl get modelflywheel -n {self.namespace}` lists all."
            )
        if len(found) > 1:
            choices = " or ".join(f"{body['kind'].lower()}/{name}" for body in found)
            raise Problem(f"{len(found)} objects are named {name}; write {choices}.", UNANSWERED)
        return found[0]

    async def get(self, kind: Kind, name: str) -> Body | None:
        """One object, or None."""
        try:
            return await self.api.request("GET", path(kind, self.namespace, name))
        except ClusterError as error:
            if error.status == 404 and f'"{name}" not found' in str(error):  # else it is the kind that isn't known
                return None
            raise problem(error, f"get {kind.plural}", self.namespace) from error

    async def every(self, kind: Kind) -> list[Body]:
        """All objects of a kind in the namespace."""
        found: list[Body] = []
        query = [("limit", PAGE)]
        while True:
            try:
                page = await self.api.request("GET", path(kind, self.namespace), query=query)
            except ClusterError as error:
                raise problem(error, f"list {kind.plural}", self.namespace) from error
            found += [{"apiVersion": API_VERSION, "kind": kind.name, **body} for body in page.get("items") or ()]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query = [("limit", PAGE), ("continue", token)]

    async def all(self) -> list[Body]:
        """All objects of the five kinds."""
        return [body for bodies in await asyncio.gather(*(self.every(kind) for kind in KINDS)) for body in bodies]

    async def whoami(self) -> str:
        """The name by which the API server knows the person at the keyboard."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self.api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
        except ClusterError as error:
            raise problem(error, "ask who you are", self.namespace) from error
        return text(answer, "status.userInfo.username")

    async def patch(self, body: Body, change: dict[str, Any]) -> Body:
        """A merge patch of the object that was read: another of the same name is another object."""
        kind = kind_named(body["kind"])
        assert kind is not None
        fenced = {**change, "metadata": {**change.get("metadata", {}), "uid": body["metadata"]["uid"]}}
        try:
            return await self.api.request(
                "PATCH",
                path(kind, self.namespace, body["metadata"]["name"]),
                query=[("fieldManager", "kubectl-flywheel")],
                body=fenced,
                content_type="application/merge-patch+json",
            )
        except ClusterError as error:
            raise problem(error, f"patch {title(body)}", self.namespace) from error


@contextlib.asynccontextmanager
async def connected(where: Where) -> AsyncIterator[Cluster]:
    """The cluster a command is about."""
    _check_kubeconfig(where)
    try:
        configuration = await load_configuration(where.kubeconfig, where.context)
    except (ConfigException, OSError, ValueError) as error:
        told = str(error) or type(error).__name__
        raise Problem(f"There is no usable kubeconfig ({told}); set KUBECONFIG, or give --kubeconfig and --context.", UNANSWERED) from error
    api = KubeApi(configuration, user_agent="kubectl-flywheel")
    try:
        yield Cluster(api, where.namespace or _namespace(where))
    finally:
        await api.close()


def _check_kubeconfig(where: Where) -> None:
    """Before the library does, which prints and goes on with nothing."""
    named = where.kubeconfig or kubeconfig_path()
    if named and not any(Path(file).is_file() for file in named.split(os.pathsep)):
        raise Problem(f"There is no kubeconfig at {named}; set KUBECONFIG, or give --kubeconfig.", UNANSWERED)


def _namespace(where: Where) -> str:
    """The namespace of the context, as kubectl has it."""
    file = where.kubeconfig or kubeconfig_path()
    if file is None:
        return "default"
    contexts, active = config.list_kube_config_contexts(config_file=file)  # type: ignore[no-untyped-call]
    chosen = next((one for one in contexts if one["name"] == where.context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def ask(where: Where, work: Callable[[Cluster], Awaitable[T]]) -> T:
    """Do some work with the cluster and leave it."""

    async def whole() -> T:
        async with connected(where) as cluster:
            return await work(cluster)

    return asyncio.run(whole())


def as_json(value: Any) -> str:
    """For scripts."""
    return json.dumps(value, indent=2, ensure_ascii=False)
