"""The node: containerd of its own, the pod network's configuration, kubelet and kube-proxy."""

from __future__ import annotations

import json

from . import tools
from .daemons import Daemon
from .settings import (
    DNS_DOMAIN,
    DNS_IP,
    NODE_IP,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_CIDR,
    POD_LINK,
    POD_NETWORK,
    Settings,
)


def configure(settings: Settings) -> None:
    """Write every configuration file of the node."""
    (settings.config / "net.d").mkdir(parents=True, exist_ok=True)
    for name, content in (
        # Pods see the cluster's names only; the cluster has no way out of this machine.
        ("resolv.conf", f"nameserver {DNS_IP}\n"),
        ("containerd.toml", _containerd_toml(settings)),
        ("net.d/10-flywheel.conflist", json.dumps(_pod_network(settings), indent=1)),
        ("kubelet.json", json.dumps(_kubelet_configuration(settings), indent=1)),
        ("kube-proxy.json", json.dumps(_kube_proxy_configuration(settings), indent=1)),
    ):
        file = settings.config / name
        # kube-proxy exits when its file is written, even with the same content.
        if not file.exists() or file.read_text() != content:
            file.write_text(content)


def containerd(settings: Settings) -> Daemon:
    return Daemon(
        "containerd",
        (str(tools.system("containerd")), "--config", str(settings.config / "containerd.toml"), "--log-level", "warn"),
        (settings.config / "containerd.toml",),
    )


def kubelet(settings: Settings) -> Daemon:
    return Daemon(
        "kubelet",
        (
            str(settings.bin / "kubelet"),
            f"--config={settings.config / 'kubelet.json'}",
            f"--kubeconfig={settings.pki / 'kubelet.kubeconfig'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_IP}",
            f"--root-dir={settings.state / 'kubelet'}",
            f"--cert-dir={settings.pki}",
        ),
        (settings.config / "kubelet.json",),
    )


def kube_proxy(settings: Settings) -> Daemon:
    return Daemon(
        "kube-proxy",
        (str(settings.bin / "kube-proxy"), f"--config={settings.config / 'kube-proxy.json'}"),
        (settings.config / "kube-proxy.json",),
    )


def _containerd_toml(settings: Settings) -> str:
    """`restrict_oom_score_adj`: without CAP_SYS_RESOURCE a score can't be lowered, and every pod would fail to start."""
    return f"""version = 2
root = "{settings.containerd_root}"
state = "{settings.run / "containerd"}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]

[grpc]
  address = "{settings.containerd_socket}"
[ttrpc]
  address = "{settings.run / "containerd.ttrpc.sock"}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  max_container_log_line_size = 262144
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{settings.config / "net.d"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{tools.system("runc")}"
        Root = "{settings.run / "runc"}"
        SystemdCgroup = false
"""


def _pod_network(settings: Settings) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": POD_LINK,
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(settings.run / "ipam"),
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": POD_NETWORK, "plugins": [bridge, portmap]}


def _kubelet_configuration(settings: Settings) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(settings.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(settings.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(settings.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "clusterDomain": DNS_DOMAIN,
        "clusterDNS": [DNS_IP],
        "resolvConf": str(settings.config / "resolv.conf"),
        "podLogsDir": str(settings.logs / "pods"),
        "volumePluginDir": str(settings.state / "kubelet" / "volume-plugins"),
        # Version 1 hierarchies, a kernel without modules, and no CAP_SYS_RESOURCE: what the kubelet may not set, it skips.
        "failCgroupV1": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "oomScoreAdj": 0,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.cgroup}",
        "failSwapOn": False,
        # Images come from this machine; one that is collected can't come back.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "shutdownGracePeriod": "0s",
    }


def _kube_proxy_configuration(settings: Settings) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(settings.pki / "kube-proxy.kubeconfig")},
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "nodePortAddresses": ["127.0.0.0/8", f"{NODE_IP}/32"],
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"syncPeriod": "30s", "minSyncPeriod": "200ms", "localhostNodePorts": True},
    }
