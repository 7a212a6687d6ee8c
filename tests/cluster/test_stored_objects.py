"""Objects that were stored under earlier releases, given to a real API server with today's CRDs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel.api.base import API_VERSION
from tests.api.stored import MOMENTS, Body, stored
from tests.cluster.api_server import ApiServer

pytestmark = pytest.mark.cluster
OBJECTS = {
    f"{release} {moment} {body['kind']} {body['metadata']['name']}": body
    for release, moment in MOMENTS
    for body in stored(release, moment)[1]
    if body["apiVersion"] == API_VERSION
}


@pytest.mark.parametrize("name", OBJECTS)
def test_it_is_taken_and_means_what_it_meant(apiserver: ApiServer, name: str) -> None:
    body: Body = OBJECTS[name]
    meta = {key: value for key, value in body["metadata"].items() if key in ("name", "labels", "annotations")}
    answer = apiserver.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps({**body, "metadata": meta}))
    assert answer.accepted, answer.error
    assert kept(body["spec"], json.loads(answer.output)["spec"])


def kept(old: Any, new: Any) -> bool:
    """Whether all that was stored is there as it was; a release may add fields with defaults."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and kept(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(kept, old, new))
    return bool(old == new)
