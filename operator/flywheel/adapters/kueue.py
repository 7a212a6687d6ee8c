"""Kueue's word on why a Job waits, from the Workload that it keeps for it."""

from __future__ import annotations

import logging

from flywheel.adapters.kube_api import KubeApi
from flywheel.plan.base import Manifest
from flywheel.ports import ClusterError

_log = logging.getLogger(__name__)
VERSIONS = ("v1beta2", "v1beta1")  # the newest first; Kueue before 0.15 serves only the older one
JOB_UID = "kueue.x-k8s.io/job-uid"
# The first of these conditions that has the status tells the most.
TELLING = (("Inadmissible", "True"), ("QuotaReserved", "False"), ("Evicted", "True"), ("Admitted", "False"))
LIMIT = 600  # characters of its message


class KueueQueues:
    """Reads Workloads; whatever goes wrong (no Kueue, no rights) is no answer, never an error."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def waits_for(self, namespace: str, job_uid: str) -> str | None:
        """Why the Workload of the Job or JobSet with this uid isn't admitted."""
        for version in VERSIONS:
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads"
            try:
                page = await self._api.request("GET", path, query=[("labelSelector", f"{JOB_UID}={job_uid}"), ("limit", "1")])
            except ClusterError as error:
                if error.status == 404:
                    continue
                _log.info("workload of %s: %s", job_uid, error)
                return None
            return next((_told(workload) for workload in page.get("items") or ()), None)
        return None


def _told(workload: Manifest) -> str | None:
    conditions = {one["type"]: one for one in (workload.get("status") or {}).get("conditions") or ()}
    for type_, status in TELLING:
        if (one := conditions.get(type_)) is not None and one["status"] == status:
            return f"{one.get('reason', type_)}: {one.get('message', '')}"[:LIMIT]
    return None
