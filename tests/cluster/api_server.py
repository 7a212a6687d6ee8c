"""Find a running cluster, or run etcd and kube-apiserver alone; talk to either with kubectl, as users do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import end, end_with_parent, free_ports

CACHE = Path(os.environ.get("FLYWHEEL_CACHE") or Path.home() / ".cache" / "flywheel")
LOCAL_KUBECONFIG = Path(os.environ.get("FLYWHEEL_CLUSTER_DIR") or "/var/lib/flywheel-cluster") / "kubeconfig"
START_SECONDS = 180  # a machine that is busy with other things needs more than a minute


def find_program(name: str) -> Path | None:
    """In KUBEBUILDER_ASSETS, in the cache of `make cluster-up`, on PATH."""
    for directory in (os.environ.get("KUBEBUILDER_ASSETS"), str(CACHE / "bin"), os.environ.get("PATH")):
        if directory and (found := shutil.which(name, path=directory)):
            return Path(found)
    return None


@dataclass(frozen=True)
class Answer:
    """What kubectl said."""

    code: int
    output: str
    error: str

    @property
    def accepted(self) -> bool:
        """Whether the API server took it."""
        return self.code == 0


@dataclass(frozen=True)
class ApiServer:
    """A Kubernetes API by its kubeconfig."""

    kubeconfig: Path
    own: bool

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> Answer:
        """Run kubectl."""
        command = [str(find_program("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    def check(self, body: dict[str, Any], namespace: str = "default") -> Answer:
        """`kubectl apply --dry-run=server`: the API server defaults and validates, and forgets."""
        return self.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(body))

    def apply(self, body: dict[str, Any], namespace: str = "default") -> Answer:
        """`kubectl apply --server-side`."""
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=json.dumps(body))

    def install_crds(self, directory: Path) -> None:
        """Apply the CRDs and wait until they are served."""
        for arguments in (
            ("apply", "--server-side", "--force-conflicts", "-f", str(directory)),
            ("wait", "--for=condition=Established", "--timeout=90s", "-f", str(directory)),
        ):
            answer = self.kubectl(*arguments, timeout=120)
            if not answer.accepted:
                raise AssertionError(f"the API server refused the CRDs:\n{answer.error}")


def running_cluster() -> ApiServer | None:
    """KUBECONFIG's cluster or the local one, if it answers."""
    named = os.environ.get("KUBECONFIG")
    if find_program("kubectl") is None:
        return None
    for path in ([Path(named)] if named else []) + [LOCAL_KUBECONFIG]:
        server = ApiServer(path, own=False)
        if path.is_file() and server.kubectl("get", "--raw", "/readyz", "--request-timeout=5s").accepted:
            return server
    return None


@contextlib.contextmanager
def started(directory: Path, service_range: str = "10.96.0.0/24", *, audit: bool = False) -> Iterator[ApiServer]:
    """etcd and kube-apiserver on free ports of 127.0.0.1, ended and reaped at the end. `audit`: who wrote what stands in audit.log."""
    client, peer, secure = free_ports(3)
    server = _prepare(directory, secure)
    etcd = [
        "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync", "--log-level", "error", "--logger", "zap",
        "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}",
    ]  # fmt: skip
    api = [
        f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1", f"--secure-port={secure}",
        f"--cert-dir={directory / 'certs'}", f"--token-auth-file={directory / 'tokens.csv'}", "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={service_range}", "--endpoint-reconciler-type=none", "--profiling=false",
        "--service-account-issuer=https://flywheel.test", f"--service-account-key-file={directory / 'key.pem'}",
        f"--service-account-signing-key-file={directory / 'key.pem'}", "--disable-admission-plugins=ServiceAccount",
    ]  # fmt: skip
    if audit:
        (directory / "audit.json").write_text(json.dumps(_AUDIT))
        api += [f"--audit-policy-file={directory / 'audit.json'}", f"--audit-log-path={directory / 'audit.log'}"]
    processes = [_start(directory, "etcd", [a for a in etcd if not a.startswith("--unsafe") or _knows_no_fsync()])]
    try:
        processes.append(_start(directory, "kube-apiserver", api))
        _wait_ready(server, processes, directory)
        yield server
    finally:
        end(*reversed(processes))


_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create", "update", "patch", "delete"]}, {"level": "None"}],
}


def _knows_no_fsync() -> bool:
    """etcd 3.5 can do without fsync, which halves the start; Debian's 3.4 can't."""
    text = subprocess.run([str(find_program("etcd")), "--help"], capture_output=True, text=True, check=False)
    return "unsafe-no-fsync" in text.stdout + text.stderr


def _prepare(directory: Path, port: int) -> ApiServer:
    key = directory / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    token = os.urandom(16).hex()
    (directory / "tokens.csv").write_text(f'{token},tester,tester,"system:masters"\n')
    certificate = directory / "certs" / "apiserver.crt"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificate)}
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
        )
    )
    kubeconfig.chmod(0o600)
    return ApiServer(kubeconfig, own=True)


def _start(directory: Path, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    with (directory / f"{name}.log").open("wb") as log:
        command = [str(find_program(name)), *arguments]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)


def _wait_ready(server: ApiServer, processes: list[subprocess.Popen[bytes]], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.kubectl("get", "namespace", "default", "--request-timeout=2s").accepted:
        ended = [p for p in processes if p.poll() is not None]
        if ended or time.monotonic() > deadline:
            logs = "\n".join(f"{p.name}: {p.read_text()[-2000:]}" for p in sorted(directory.glob("*.log")))
            raise AssertionError(f"the API server did not start:\n{logs}")
        time.sleep(0.2)
