"""promtool: from PATH, or in a pod of the local cluster's Prometheus image, so that CI needs nothing on the host."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.cluster.api_server import find_program, running_cluster

IMAGE = "localhost/flywheel/prometheus:dev"


@dataclass(frozen=True)
class Promtool:
    """The program, and what to put before a command so that it runs where the program is."""

    program: str
    prefix: tuple[str, ...] = ()

    def run(self, files: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """promtool in a directory that holds these files."""
        inside = ["sh", "-c", 'cd "$(mktemp -d)" && tar -x --no-same-owner && exec "$@"', "sh", self.program, *arguments]
        done = subprocess.run([*self.prefix, *inside], input=_archive(files), capture_output=True, timeout=120, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def found() -> Iterator[Promtool | None]:
    """promtool, if there is any."""
    if (program := find_program("promtool")) is not None:
        yield Promtool(str(program))
    elif (server := running_cluster()) is not None:
        pod = f"promtool-{uuid.uuid4().hex[:8]}"
        run = ("run", pod, f"--image={IMAGE}", "--image-pull-policy=IfNotPresent", "--restart=Never", "--command", "--", "sleep", "900")
        try:
            for arguments in (run, ("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")):
                answer = server.kubectl(*arguments, timeout=90)
                assert answer.accepted, answer.error
            yield Promtool("promtool", (str(find_program("kubectl")), "--kubeconfig", str(server.kubeconfig), "exec", "-i", pod, "--"))
        finally:
            server.kubectl("delete", "pod", pod, "--now", "--wait=false")
    else:
        yield None


def _archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry, data = tarfile.TarInfo(name), text.encode()
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
