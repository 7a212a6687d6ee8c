"""HTTP to the API server: the official client's configuration and transport, plain JSON in and out.

The generated methods and models of the client are left aside: the operator works on manifests, and dictionaries of
five kinds and their children are a fraction of the models' memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from flywheel.adapters.resources import resource_of
from flywheel.plan.base import Manifest
from flywheel.ports import ClusterError, Conflict

REQUEST_TIMEOUT = 15.0
CONNECT_TIMEOUT = 5.0
MAX_REQUESTS = 16  # at once; the API server's fairness queues stay open to others
USER_AGENT = "flywheel-operator"
_HOME_CONFIG = Path.home() / ".kube" / "config"
Query = Sequence[tuple[str, str]]
RequestObserver = Callable[[str, str, int, float], None]  # method (WATCH for a stream's begin), resource, status, seconds


def kubeconfig_path() -> str | None:
    """KUBECONFIG (which may name several files), or ~/.kube/config if there is one."""
    # Read here: the library reads KUBECONFIG once, when it is imported.
    return os.environ.get("KUBECONFIG") or (str(_HOME_CONFIG) if _HOME_CONFIG.exists() else None)


async def load_configuration(path: str | None = None, context: str | None = None) -> Configuration:
    """A kubeconfig if one is named or found, else the pod's service account, whose token is read again as it rotates."""
    configuration = Configuration()
    # Asked once: aiohttp would look for a proxy and a .netrc in a thread of its own at every request.
    configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
    path = path or kubeconfig_path()
    if path:
        await config.load_kube_config(config_file=path, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def api_error(status: int, body: bytes, retry_after: str | None, what: str) -> ClusterError:
    """What an answer that is no success means."""
    try:
        message = json.loads(body).get("message") or body.decode(errors="replace")
    except (ValueError, AttributeError):
        message = body.decode(errors="replace")
    text = f"{what}: {status} {message[:1024]}"
    if status == 409:
        return Conflict(text, status=status, retryable=True)
    # 401 is retryable: the token is read again from its file. 410 means "list again", which is what a retry does.
    retryable = status in (401, 408, 410, 429) or status >= 500
    return ClusterError(text, status=status, retryable=retryable, retry_after=_seconds(retry_after))


def _seconds(header: str | None) -> float | None:
    try:
        return min(300.0, max(0.0, float(header))) if header else None
    except ValueError:
        return None


class KubeApi:
    """Requests to one API server. Every method raises ClusterError, and nothing else, when the server refuses or is away."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        on_request: RequestObserver | None = None,
        max_requests: int = MAX_REQUESTS,
        user_agent: str = USER_AGENT,
    ) -> None:
        self.fence: Callable[[], str | None] = lambda: None  # why nothing may be written now, if there is a reason
        self._client = ApiClient(configuration)
        self._client.user_agent = user_agent
        self._slots = asyncio.Semaphore(max_requests)
        self._on_request = on_request or (lambda _method, _resource, _status, _seconds: None)

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = REQUEST_TIMEOUT,
        urgent: bool = False,
    ) -> Manifest:
        """One request and its JSON answer. `urgent` passes the queue of ordinary requests (the leader's lease)."""
        async with contextlib.nullcontext() if urgent else self._slots:
            # Here and not earlier: whoever waited for a slot may have lost the lead meanwhile.
            if method != "GET" and not urgent and (why := self.fence()) is not None:
                raise ClusterError(f"{method} {path} was not sent: {why}", status=0, retryable=True)
            started = time.monotonic()
            status = 0
            try:
                response = await self._send(
                    method, path, query, body, (accept, content_type), aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
                )
                status, data = response.status, await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ClusterError(f"{method} {path}: {_reason(error)}", status=0, retryable=True) from error
            finally:
                self._on_request(method, resource_of(path), status, time.monotonic() - started)
        if not 200 <= status <= 299:
            raise api_error(status, data, response.headers.get("Retry-After"), f"{method} {path}")
        return _object(data, f"{method} {path}")

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, *, query: Query, seconds: float, accept: str = "application/json"
    ) -> AsyncIterator[AsyncIterator[Manifest]]:
        """The JSON lines of a watch, at most for so many seconds. Entered once the server has accepted it."""
        what, started, status = f"WATCH {path}", time.monotonic(), 0
        try:
            limits = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
            try:
                response = await self._send("GET", path, query, None, (accept, "application/json"), limits)
                status = response.status
            finally:
                self._on_request("WATCH", resource_of(path), status, time.monotonic() - started)
            try:
                if response.status != 200:
                    raise api_error(response.status, await response.read(), response.headers.get("Retry-After"), what)
                yield _lines(response.content, what)
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(f"{what}: {_reason(error)}", status=0, retryable=True) from error

    async def _send(
        self, method: str, path: str, query: Query, body: Any, types: tuple[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        arguments = await self._client.param_serialize(
            method, path, query_params=list(query), header_params={"Accept": types[0], "Content-Type": types[1]},
            body=body, auth_settings=["BearerToken"],
        )  # fmt: skip
        answer = await self._client.call_api(*arguments, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _object(data: bytes, what: str) -> Manifest:
    try:
        decoded = json.loads(data)
    except ValueError as error:
        raise ClusterError(f"{what}: the answer is not JSON", status=0, retryable=True) from error
    if not isinstance(decoded, dict):
        raise ClusterError(f"{what}: the answer is not an object", status=0, retryable=True)
    return decoded


async def _lines(content: aiohttp.StreamReader, what: str) -> AsyncIterator[Manifest]:
    # Not readline(): it fails on a line longer than its buffer, and a ControllerRevision may be as long as etcd allows.
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            parts.append(line)
            whole = b"".join(parts)
            parts.clear()
            if whole.strip():
                yield _object(whole, what)
        parts.append(rest)


async def find(api: KubeApi, path: str) -> Manifest | None:
    """What is there, or None."""
    try:
        return await api.request("GET", path)
    except ClusterError as error:
        if error.status != 404:
            raise
        return None
