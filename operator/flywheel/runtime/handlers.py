"""kopf: login, signals, and the watch of the five kinds.

The handlers are edges and decide nothing: they put what was seen into the cache, and the level loop does the rest. None
of kopf's per-object state is used, so no annotation, no finalizer and no progress of it ever appears on an object.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any, cast

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory  # what kopf.operator(memories=) takes has no public name
from kubernetes.aio.client.configuration import Configuration

from flywheel.api.base import GROUP, VERSION
from flywheel.runtime.cache import Cache
from flywheel.runtime.keys import KINDS

_TOKEN_LIFE = dt.timedelta(minutes=5)  # service account tokens rotate; kopf asks again after that


class NoDiffBase(kopf.DiffBaseStorage):
    """Of handlers that compare nothing: kopf would copy every object at every event to see what of it has changed."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing to keep."""


class NoMemories(ResourceMemories):
    """Of handlers that keep nothing from one event to the next: kopf would remember every object there is."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**options, "ephemeral": True})


def kopf_settings() -> kopf.OperatorSettings:
    """What kopf needs to behave in production (its defaults are for development)."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # events are the planners' to emit
    settings.scanning.disabled = True  # no rights on CRDs and namespaces; the CRDs are there before kopf starts
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = 200
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.process.ultimate_exiting_timeout = 30
    # Never written with these handlers; ours in case that changes.
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = NoDiffBase()
    return settings


def kopf_registry(
    configuration: Configuration, cache: Cache, *, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> kopf.OperatorRegistry:
    """The handlers: `start` before the watch begins, `stop` when kopf has been told to end."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await _connection(configuration)

    @kopf.on.startup(registry=registry)
    async def startup(**_: Any) -> None:
        await start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await stop()

    for kind in KINDS:

        @kopf.on.event(GROUP, VERSION, kind, registry=registry)
        async def seen(event: Any, **_: Any) -> None:
            if event["type"] == "DELETED":
                cache.remove(event["object"])
            else:
                cache.put(event["object"])

    return registry


async def run_kopf(registry: kopf.OperatorRegistry, namespaces: tuple[str, ...], stop: asyncio.Event) -> None:
    """Until SIGTERM, SIGINT or `stop`."""
    scope: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
    await kopf.operator(registry=registry, settings=kopf_settings(), memories=NoMemories(), standalone=True, stop_flag=stop, **scope)


async def _connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """The credentials our own client uses; one login for both."""
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = header.rpartition(" ")
    rotates = getattr(configuration, "refresh_api_key_hook", None) is not None
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        expiration=dt.datetime.now(dt.UTC) + _TOKEN_LIFE if rotates else None,
    )
