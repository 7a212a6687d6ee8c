"""How far the run is, over HTTP: JSON for the operator, text for Prometheus, and a sign of life."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Clock = Callable[[], float]


class Progress:
    """Written by the training thread, read by the server's threads."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._phase = "Starting"
        self._step = self._total = self._first_step = 0
        self._since = clock()
        self._metrics: dict[str, float] = {}
        self._tokens_per_second = 0.0

    def begin(self, phase: str, total: int, first_step: int = 0) -> None:
        """A new phase with its own count of steps; `first_step` is where a resumed run goes on."""
        with self._lock:
            self._phase, self._total, self._step, self._first_step = phase, total, first_step, first_step
            self._since = self._clock()
        print(f"[{phase}] {total} steps", flush=True)

    def enter(self, phase: str) -> None:
        """A phase without steps of its own, such as saving: the count stays, or people would see a finished run at 0 %."""
        with self._lock:
            self._phase = phase
        print(f"[{phase}]", flush=True)

    def step(self, step: int, *, tokens: int | None = None, metrics: Mapping[str, float] | None = None) -> None:
        with self._lock:
            self._step = step
            elapsed = self._clock() - self._since
            if tokens is not None and elapsed > 0:
                self._tokens_per_second = tokens / elapsed
            self._metrics.update(metrics or {})

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            done = self._step - self._first_step
            elapsed = self._clock() - self._since
            remaining = round(elapsed / done * (self._total - self._step), 1) if done > 0 else None
            return {
                "phase": self._phase,
                "step": self._step,
                "totalSteps": self._total,
                "percent": round(100 * self._step / self._total, 1) if self._total else 0.0,
                "etaSeconds": remaining,
                "tokensPerSecond": round(self._tokens_per_second, 1),
                "metrics": dict(self._metrics),
            }

    def prometheus(self) -> str:
        now = self.snapshot()
        lines = [
            "# HELP flywheel_trainer_step Steps done in the current phase.",
            "# TYPE flywheel_trainer_step gauge",
            f'flywheel_trainer_step{{phase="{now["phase"]}"}} {now["step"]}',
            "# HELP flywheel_trainer_total_steps Steps of the current phase.",
            "# TYPE flywheel_trainer_total_steps gauge",
            f'flywheel_trainer_total_steps{{phase="{now["phase"]}"}} {now["totalSteps"]}',
            "# HELP flywheel_trainer_tokens_per_second Tokens trained or generated a second.",
            "# TYPE flywheel_trainer_tokens_per_second gauge",
            f"flywheel_trainer_tokens_per_second {now['tokensPerSecond']}",
            "# HELP flywheel_trainer_metric Newest value of a training metric.",
            "# TYPE flywheel_trainer_metric gauge",
        ]
        lines += [f'flywheel_trainer_metric{{name="{_escape(name)}"}} {value}' for name, value in sorted(now["metrics"].items())]
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def serve(progress: Progress, port: int) -> ThreadingHTTPServer:
    """Serve in a daemon thread until the process ends. Port 0 takes a free one (see `server_port`)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages: dict[str, Callable[[], tuple[str, str]]] = {
                "/progress": lambda: ("application/json", json.dumps(progress.snapshot())),
                "/metrics": lambda: ("text/plain; version=0.0.4", progress.prometheus()),
                "/healthz": lambda: ("text/plain", "ok\n"),
            }
            page = pages.get(self.path.split("?")[0])
            kind, body = page() if page else ("text/plain", "not found\n")
            with contextlib.suppress(ConnectionError):  # whoever asked has lost patience: no traceback among the last words of the run
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """One line a poll would drown the training log."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
