"""`python -m flywheel.runtime.install_crds`: bring the cluster's CRDs to those of this release.

Helm installs what lies in a chart's crds/ and never upgrades it; so the chart runs this before an install or upgrade (docs/upgrading.md).
It may be run again at any time, and by hand with a kubeconfig. Ends with 1, and the API server's words, when a CRD could not be written.
"""

from __future__ import annotations

import asyncio
import sys
import time

from flywheel.adapters.kube_api import KubeApi, find, load_configuration
from flywheel.api.crd import crds
from flywheel.api.crd_upgrade import Manifest, replacement, unknown
from flywheel.ports import ClusterError, Conflict

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATIENCE = 120.0  # seconds in which the API server must answer
BACKOFF = 2.0  # seconds


async def bring(api: KubeApi, wanted: Manifest) -> str:
    """Write one CRD; what was done, in words. Raises ClusterError."""
    name = wanted["metadata"]["name"]
    found = await find(api, f"{PATH}/{name}")
    if found is None:
        await api.request("POST", PATH, body=wanted)
        return f"{name}: created"
    if more := unknown(found, wanted):
        some = ", ".join(more[:5]) + (f" and {len(more) - 5} more" if len(more) > 5 else "")
        return f"{name}: left as it is, for it is of a newer release (this one does not know {some})"
    if found["spec"]["versions"] == wanted["spec"]["versions"]:
        return f"{name}: unchanged"
    await api.request("PUT", f"{PATH}/{name}", body=replacement(found, wanted))
    return f"{name}: replaced"


async def patiently(api: KubeApi, wanted: Manifest, deadline: float) -> str:
    """The same, again while it is worth it: another writer was faster, or the API server is busy or away."""
    while True:
        try:
            return await bring(api, wanted)
        except ClusterError as error:
            if not (error.retryable or isinstance(error, Conflict)) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(error.retry_after or BACKOFF)


async def established(api: KubeApi, name: str, deadline: float) -> None:
    """Wait until the API server serves the kind."""
    while True:
        body = await api.request("GET", f"{PATH}/{name}")
        told = {c["type"]: c for c in (body.get("status") or {}).get("conditions") or ()}
        if told.get("Established", {}).get("status") == "True":
            return
        if time.monotonic() > deadline:
            why = told.get("NamesAccepted", {}).get("message") or "it has not said why"
            raise ClusterError(f"{name} is not served: {why}", status=0, retryable=False)
        await asyncio.sleep(0.2)


async def run() -> None:
    """All five."""
    api, deadline = KubeApi(await load_configuration()), time.monotonic() + PATIENCE
    try:
        for wanted in crds().values():
            print(await patiently(api, wanted, deadline), flush=True)
        for wanted in crds().values():
            await established(api, wanted["metadata"]["name"], deadline)
    finally:
        await api.close()


def main() -> None:
    """Entry point."""
    try:
        asyncio.run(run())
    except ClusterError as error:
        sys.exit(f"the CRDs could not be brought to this release: {error}")


if __name__ == "__main__":
    main()
