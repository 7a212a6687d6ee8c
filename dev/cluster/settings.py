"""Where things lie and which addresses the cluster uses."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# A bridge without ports carries the node's address: the API server may not advertise a loopback address, and this one
# leaves the machine no more than loopback does.
NODE_NAME = "flywheel"
NODE_LINK = "flywheel-node"
NODE_IP = "10.199.0.1"
POD_LINK = "flywheel-cni"
POD_NETWORK = "flywheel"
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
DNS_DOMAIN = "cluster.local"

API_PORT = 6443
ETCD_CLIENT_PORT = 23790
ETCD_PEER_PORT = 23800

# One UID owns the shared volume and runs every container: fsGroup is not applied to local volumes.
WORKLOAD_UID = 10001

PAUSE_IMAGE = "localhost/flywheel/pause:dev"
DEFAULT_STATE = Path("/var/lib/flywheel-cluster")
COREDNS_IMAGE = "localhost/flywheel/coredns:dev"


@dataclass(frozen=True)
class Settings:
    """The two directories everything else is derived from."""

    cache: Path
    state: Path

    @classmethod
    def from_environment(cls) -> Settings:
        cache = os.environ.get("FLYWHEEL_CACHE") or str(Path.home() / ".cache" / "flywheel")
        # Short on purpose: a Unix socket's path may not exceed 107 bytes.
        state = Path(os.environ.get("FLYWHEEL_CLUSTER_DIR") or DEFAULT_STATE)
        return cls(Path(cache).absolute(), state.absolute())

    @property
    def bin(self) -> Path:
        """Links to the binaries in use, so that a version change needs no edit elsewhere."""
        return self.cache / "bin"

    @property
    def cgroup(self) -> str:
        """Every pod lies in this cgroup of every hierarchy, so that its processes can be found and ended."""
        if self.state == DEFAULT_STATE:
            return "flywheel"
        return f"flywheel-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"  # never the name of somebody else's

    @property
    def marker(self) -> Path:
        """Says that the state directory is this cluster's: `down` empties no other."""
        return self.state / ".flywheel-cluster"

    @property
    def api_url(self) -> str:
        return f"https://{NODE_IP}:{API_PORT}"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def volumes(self) -> Path:
        """One directory for each PersistentVolume."""
        return self.state / "volumes"

    @property
    def containerd_root(self) -> Path:
        """Images and their unpacked layers. Kept by `down`, removed by `down --purge`."""
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"
