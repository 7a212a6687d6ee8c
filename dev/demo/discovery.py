"""Pods that ask to be scraped, as a file for Prometheus: Debian's build has no Kubernetes discovery of its own.

Runs beside Prometheus (operator's image, this file from a ConfigMap): python discovery.py /discovery/pods.json
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ANNOTATION = "prometheus.io/"
EVERY = 2  # seconds


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One target for every running pod with the annotations `prometheus.io/scrape: "true"` and `/port`."""
    found = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status") or {}
        asked = meta.get("annotations") or {}
        port, ip = asked.get(ANNOTATION + "port"), status.get("podIP")
        if asked.get(ANNOTATION + "scrape") != "true" or status.get("phase") != "Running" or not (port and ip):
            continue
        labels = {"namespace": meta["namespace"], "pod": meta["name"], "__metrics_path__": asked.get(ANNOTATION + "path", "/metrics")}
        found.append({"targets": [f"{ip}:{port}"], "labels": labels})
    return found


def publish(path: Path, text: str) -> None:
    """Replace the file at once, if its content is another."""
    if not path.exists() or path.read_text() != text:
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(path)


async def main(path: Path) -> None:
    """Write the file again whenever the pods are others."""
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}/api/v1/pods"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        while True:
            headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}  # read again: the kubelet renews it
            try:
                async with http.get(url, headers=headers, ssl=context, params={"resourceVersion": "0"}) as answer:
                    answer.raise_for_status()
                    text = json.dumps(targets((await answer.json())["items"]), indent=1)
            except (aiohttp.ClientError, TimeoutError) as error:
                print(f"pods can't be listed: {error}", file=sys.stderr, flush=True)
            else:
                publish(path, text)
            await asyncio.sleep(EVERY)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
