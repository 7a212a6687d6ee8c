"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes on this machine."""

from __future__ import annotations

from . import tools
from .daemons import Daemon
from .settings import (
    API_PORT,
    DNS_DOMAIN,
    ETCD_CLIENT_PORT,
    ETCD_PEER_PORT,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
    Settings,
)


def daemons(settings: Settings) -> list[Daemon]:
    """In the order they are started."""
    return [etcd(settings), apiserver(settings), controller_manager(settings), scheduler(settings)]


def etcd(settings: Settings) -> Daemon:
    client, peer = f"http://127.0.0.1:{ETCD_CLIENT_PORT}", f"http://127.0.0.1:{ETCD_PEER_PORT}"
    return Daemon(
        "etcd",
        (
            str(tools.system("etcd")),
            "--name=flywheel",
            f"--data-dir={settings.state / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=flywheel={peer}",
            "--auto-compaction-retention=1",
            "--logger=zap",
            "--log-level=warn",
        ),
    )


def apiserver(settings: Settings) -> Daemon:
    pki = settings.pki
    return Daemon(
        "kube-apiserver",
        (
            str(settings.bin / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{ETCD_CLIENT_PORT}",
            f"--bind-address={NODE_IP}",
            f"--advertise-address={NODE_IP}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DNS_DOMAIN}",
            f"--service-account-key-file={pki / 'service-accounts.key'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            "--event-ttl=2h",
            "--profiling=false",
        ),
    )


def controller_manager(settings: Settings) -> Daemon:
    kubeconfig = settings.pki / "kube-controller-manager.kubeconfig"
    return Daemon(
        "kube-controller-manager",
        (
            str(settings.bin / "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={settings.pki / 'service-accounts.key'}",
            f"--root-ca-file={settings.pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={settings.pki / 'ca.crt'}",
            f"--cluster-signing-key-file={settings.pki / 'ca.key'}",
            f"--cluster-cidr={POD_CIDR}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--leader-elect=false",
            "--terminated-pod-gc-threshold=500",
            "--profiling=false",
        ),
    )


def scheduler(settings: Settings) -> Daemon:
    kubeconfig = settings.pki / "kube-scheduler.kubeconfig"
    return Daemon(
        "kube-scheduler",
        (
            str(settings.bin / "kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ),
    )
