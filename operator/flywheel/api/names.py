"""Labels and annotations that more than one part writes or reads. One definition; `plan.base` and `specs.pods` hand them on."""

from __future__ import annotations

from flywheel.api.base import GROUP, Metadata

MANAGER = "flywheel-operator"  # field manager, component of events, and whose things are whose
LABEL = f"{GROUP}/"  # prefix of ours
MANAGED_BY = {"app.kubernetes.io/managed-by": MANAGER}
RETRY = LABEL + "retry"  # annotation: any new value asks for another try
RETRY_STAGE = LABEL + "retry-stage"  # annotation: the one stage of a lap that this try is about


def retry_token(metadata: Metadata) -> str | None:
    """The value of the retry annotation, as long as a status keeps it; None for none."""
    token = metadata.annotations.get(RETRY)
    return token[:256] if token else None
