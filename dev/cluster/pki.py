"""Certificates and kubeconfigs: one authority, one certificate for each component, made with openssl."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from .settings import DNS_DOMAIN, KUBERNETES_SERVICE_IP, NODE_IP, NODE_NAME, Settings
from .shell import Words, run

_DAYS = "365"

# Common name, organisation and subject alternative names of each certificate.
_CERTIFICATES: dict[str, tuple[str, str, str]] = {
    "apiserver": (
        "kube-apiserver",
        "",
        f"DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.{DNS_DOMAIN},"
        f"DNS:localhost,IP:127.0.0.1,IP:{NODE_IP},IP:{KUBERNETES_SERVICE_IP}",
    ),
    "kubelet-server": (f"system:node:{NODE_NAME}", "system:nodes", f"DNS:{NODE_NAME},IP:{NODE_IP}"),
    "kubelet-client": ("apiserver-kubelet-client", "system:masters", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes", ""),
    "kube-controller-manager": ("system:kube-controller-manager", "", ""),
    "kube-scheduler": ("system:kube-scheduler", "", ""),
    "kube-proxy": ("system:kube-proxy", "", ""),
    "admin": ("flywheel-admin", "system:masters", ""),
}
_WITH_KUBECONFIG = ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "admin")


def prepare(settings: Settings) -> None:
    """Make what is missing; an existing cluster keeps its authority, so its kubeconfigs stay valid."""
    settings.pki.mkdir(parents=True, exist_ok=True)
    settings.pki.chmod(0o700)
    authority = settings.pki / "ca.crt"
    if not authority.exists():
        _key(settings.pki / "ca.key")
        subject = ["-subj", "/CN=flywheel-cluster", "-days", _DAYS]
        run(["openssl", "req", "-x509", "-new", "-key", settings.pki / "ca.key", *subject, "-out", authority])
    for name in _CERTIFICATES:
        if not (settings.pki / f"{name}.crt").exists():
            _certificate(settings.pki, name)
    if not (settings.pki / "service-accounts.key").exists():
        _key(settings.pki / "service-accounts.key")
    for name in _WITH_KUBECONFIG:
        target = settings.kubeconfig if name == "admin" else settings.pki / f"{name}.kubeconfig"
        target.write_text(json.dumps(_kubeconfig(settings, name), indent=1))
        target.chmod(0o600)


def _key(path: Path) -> None:
    run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", path])
    path.chmod(0o600)


def _certificate(directory: Path, name: str) -> None:
    common_name, organisation, names = _CERTIFICATES[name]
    _key(directory / f"{name}.key")
    subject = (f"/O={organisation}" if organisation else "") + f"/CN={common_name}"
    request = directory / f"{name}.csr"
    run(["openssl", "req", "-new", "-key", directory / f"{name}.key", "-subj", subject, "-out", request])
    extensions = directory / f"{name}.ext"
    lines = ["keyUsage=digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"]
    extensions.write_text("\n".join([*lines, f"subjectAltName={names}" if names else ""]))
    signer: Words = ["-CA", directory / "ca.crt", "-CAkey", directory / "ca.key", "-CAcreateserial", "-days", _DAYS]
    certificate = directory / f"{name}.crt"
    run(["openssl", "x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate])
    request.unlink()
    extensions.unlink()


def _kubeconfig(settings: Settings, name: str) -> dict[str, object]:
    """JSON, which every reader of kubeconfigs takes as YAML."""

    def inline(file: str) -> str:
        return base64.b64encode((settings.pki / file).read_bytes()).decode()

    user = {"client-certificate-data": inline(f"{name}.crt"), "client-key-data": inline(f"{name}.key")}
    cluster = {"server": settings.api_url, "certificate-authority-data": inline("ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "flywheel", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "flywheel", "context": {"cluster": "flywheel", "user": name}}],
        "current-context": "flywheel",
    }
