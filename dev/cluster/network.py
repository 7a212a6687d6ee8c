"""The node's link, the kernel settings pods need, and the removal of every trace of both."""

from __future__ import annotations

import json
import re

from .settings import NODE_IP, NODE_LINK, POD_LINK, SERVICE_CIDR, Settings
from .shell import ClusterError, find, run, succeeds

# Set by us, kubelet or kube-proxy; the values found are put back by `down`.
_WANTED = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
_CHANGED_BY_OTHERS = (
    "vm.overcommit_memory",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.ipv4.conf.all.route_localnet",
)
_OUR_CHAIN = re.compile(r"^:((?:KUBE-|CNI-)\S+) ", re.M)


def prepare(settings: Settings) -> None:
    """Create the node's link and set what forwarding between pods needs."""
    _remember(settings)
    for name, value in _WANTED.items():
        run(["sysctl", "-q", "-w", f"{name}={value}"])
    if not succeeds(["ip", "link", "show", NODE_LINK]):
        run(["ip", "link", "add", NODE_LINK, "type", "bridge"])
    run(["ip", "address", "replace", f"{NODE_IP}/32", "dev", NODE_LINK])
    run(["ip", "link", "set", NODE_LINK, "up"])
    # A Service's address is rewritten before it is routed anywhere; until kube-proxy has done so, it must not leave the machine.
    run(["ip", "route", "replace", SERVICE_CIDR, "dev", NODE_LINK])


def remove(settings: Settings) -> None:
    """Links, rules and kernel settings as they were before `prepare`."""
    for link in (POD_LINK, NODE_LINK):
        if succeeds(["ip", "link", "show", link]):
            run(["ip", "link", "delete", link])
    for family in _families():
        _remove_chains(family)
    record = settings.state / "sysctl.json"
    if record.exists():
        for name, value in json.loads(record.read_text()).items():
            run(["sysctl", "-q", "-w", f"{name}={value}"])
        record.unlink()


def leftovers() -> list[str]:
    """Links and chains that still exist."""
    found = [link for link in (POD_LINK, NODE_LINK) if succeeds(["ip", "link", "show", link])]
    for family in _families():
        found += [f"{family} chain {chain}" for chain in _OUR_CHAIN.findall(run([f"{family}-save"]))]
    return found


def _families() -> list[str]:
    """A machine that never had the cluster may have no iptables at all."""
    return [family for family in ("iptables", "ip6tables") if find(f"{family}-save")]


def _remember(settings: Settings) -> None:
    record = settings.state / "sysctl.json"
    if not record.exists():
        found = {}
        for name in (*_WANTED, *_CHANGED_BY_OTHERS):
            try:
                found[name] = run(["sysctl", "-n", name]).strip()
            except ClusterError:
                continue  # this kernel has no such setting
        record.write_text(json.dumps(found, indent=1))


def _remove_chains(family: str) -> None:
    """Drop every chain that kubelet, kube-proxy and the CNI plugins made, and the rules that lead there."""
    script: list[str] = []
    for table in re.split(r"^(?=\*)", run([f"{family}-save"]), flags=re.M)[1:]:
        chains = _OUR_CHAIN.findall(table)
        if not chains:
            continue
        script.append(table.splitlines()[0])
        # A rule of a chain that is not ours, but jumps to or was written by ours.
        for line in table.splitlines():
            if line.startswith("-A ") and not re.match(r"-A (KUBE-|CNI-)", line) and re.search(r" -j (KUBE-|CNI-)", line):
                script.append("-D" + line[2:])
        script += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
        script.append("COMMIT")
    if script:
        run([f"{family}-restore", "--noflush"], stdin="\n".join([*script, ""]))
