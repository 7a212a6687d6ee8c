"""What the agent is told on its command line and by the downward API."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flywheel.specs.envoy_bootstrap import ADMIN_PORT, RUN_DIRECTORY

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Settings:
    service: str
    namespace: str
    pod: str
    api: str
    run: Path = Path(RUN_DIRECTORY)
    seed: Path = Path("/etc/flywheel/routes/routes.json")
    logs: Path = Path("/flywheel/logs")
    credentials: Path = CREDENTIALS
    admin: str = f"http://127.0.0.1:{ADMIN_PORT}"
    port: int = 9903
    linger_seconds: float = 60  # how long clusters outlive the routes that named them
    health_interval: float = 1
    drain_delay: float = 5  # endpoints take this long to leave every node's rules
    drain_seconds: float = 600
    log_rotate_bytes: int = 64 << 20
    log_rotate_seconds: float = 3600
    log_keep_bytes: int = 4 << 30  # rotated files that nobody has read

    @property
    def xds(self) -> Path:
        return self.run / "xds"

    @property
    def log_directory(self) -> Path:
        return self.logs / self.service / self.pod


def parse(arguments: Sequence[str] | None = None) -> tuple[str, Settings]:
    """The command (`prepare` or `run`) and its settings."""
    parser = argparse.ArgumentParser(prog="python -m flywheel.runtime.router_agent", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("prepare", "run"), default="run", help="prepare: write Envoy's first files and end")
    parser.add_argument("--service", required=True, help="name of the model service (the Flywheel)")
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE"))
    parser.add_argument("--pod", default=os.environ.get("POD_NAME"))
    parser.add_argument("--api", default=_in_cluster())
    for name, help_ in (
        ("run", "directory shared with Envoy"),
        ("seed", "mounted routes.json"),
        ("logs", "directory of access logs"),
        ("credentials", "directory of the service account's token and ca.crt"),
    ):
        parser.add_argument(f"--{name}", type=Path, default=getattr(Settings, name), help=help_)
    parser.add_argument("--admin", default=Settings.admin, help="Envoy's admin address")
    parser.add_argument("--port", type=int, default=Settings.port)
    for name in ("linger-seconds", "health-interval", "drain-delay", "drain-seconds"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Settings, name.replace("-", "_")))
    parser.add_argument("--log-rotate-seconds", type=float, default=Settings.log_rotate_seconds, help="an access log older than this")
    for name, help_ in (("rotate", "an access log larger than this is rotated"), ("keep", "unread rotated logs past this are removed")):
        parser.add_argument(f"--log-{name}-bytes", type=int, default=getattr(Settings, f"log_{name}_bytes"), help=help_)
    values = vars(parser.parse_args(arguments))
    if missing := [name for name in ("namespace", "pod", "api") if not values[name]]:
        parser.error(f"--{missing[0]} is needed outside a pod")
    return values.pop("command"), Settings(**values)


def _in_cluster() -> str | None:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host is None:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
