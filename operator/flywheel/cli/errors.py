"""What went wrong, in one sentence with the mend, and as an exit code."""

from __future__ import annotations

from flywheel.ports import ClusterError

REFUSED = 1  # it was asked, and the answer is no: not there, makes no sense, not valid, not healthy
UNANSWERED = 2  # it could not be asked: wrong usage, no kubeconfig, no API server, no right to


class Problem(Exception):
    """A sentence for the person who typed the command."""

    def __init__(self, sentence: str, code: int = REFUSED) -> None:
        super().__init__(sentence)
        self.code = code


def problem(error: ClusterError, what: str, namespace: str) -> Problem:
    """An answer of the API server that is no success, as a sentence."""
    said = str(error).partition(": ")[2] or str(error)
    if error.status == 0:
        return Problem(f"The API server did not answer ({said}); check --kubeconfig and --context, or `kubectl version`.", UNANSWERED)
    if error.status == 401:
        return Problem("The API server does not know you (401); log in again, or choose another --context.", UNANSWERED)
    if error.status == 403 and "ValidatingAdmissionPolicy" in said:  # its own sentence has the mend
        return Problem(f"You may not {what}: {said.rpartition('denied request: ')[2]}.", UNANSWERED)
    if error.status == 403:
        mend = f"ask for the ClusterRole view or edit in namespace {namespace}, which the chart extends by the kinds of Flywheel"
        return Problem(f"You may not {what} ({said.removeprefix('403 ')}); {mend}.", UNANSWERED)
    if error.status == 404:
        return Problem(f"The API server does not know the kinds of Flywheel ({what}: 404); install them with the chart or crds/.")
    return Problem(f"The API server refused to {what}: {said}.")
