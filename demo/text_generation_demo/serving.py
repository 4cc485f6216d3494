"""A server of the demo's own: the launcher as a child, for as long as it is needed."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 180.0
"""Seconds until the server must be ready."""


class NotServed(RuntimeError):
    """The server ended, or took too long; the text says where its log is."""


@contextmanager
def served(model: str, adapters: Mapping[str, Path], log: Path) -> Iterator[str]:
    """Serve a model with adapters by name, on a free port of this machine; gives the URL. Raises NotServed."""
    port = _free_port()
    named = ",".join(f"{name}={place}" for name, place in adapters.items())
    command = [sys.executable, "-m", "text_generation_launcher", "--model-id", model, "--port", str(port)]
    command += ["--hostname", "127.0.0.1", "--lora-adapters", named, "--max-concurrent-requests", "16"]
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(child, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait()


def _wait_until_ready(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise NotServed(f"the server ended: see {log}")
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise NotServed(f"the server was not ready after {PATIENCE_S:.0f} s: see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
