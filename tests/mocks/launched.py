"""Runs the launcher in a process of its own, with stubs for server and router, and looks at what it leaves behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STUBS = Path(__file__).parents[1] / "launcher"
_PATIENCE_SECONDS = 30.0
_DRIVER = """
import logging
import sys
from text_generation_launcher.command import command
from text_generation_launcher.programs import Programs
# Developers' mode also tells steps of the loop that took long, which they do on a busy machine.
logging.getLogger("asyncio").addFilter(lambda record: "took %.3f seconds" not in record.msg)
stub = (sys.executable, "-I", "-S")
command()(obj=Programs(sys.executable, (*stub, sys.argv.pop(1)), (*stub, sys.argv.pop(1))))
"""


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def free_port() -> int:
    """A port nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Launched:
    """A launcher that runs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, port: int) -> None:
        self.process = process
        self.folder = folder
        self.port = port

    def seen(self, role: str) -> dict[str, Any]:
        """What a child was started with, once it runs."""
        path = self.folder / f"{role}.seen"

        def ready() -> bool:
            assert path.exists() or self.process.poll() is None, self.process.communicate()
            return path.exists()

        wait_for(ready, role)
        seen: dict[str, Any] = json.loads(path.read_text())
        return seen

    def read_until(self, text: str) -> str:
        """Stdout up to the line that holds the text."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return "".join(lines)
        raise AssertionError(f"{text!r} is not in {lines}; stderr: {self.process.communicate()[1]}")

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr after the signal; every child must be gone, and every socket."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=_PATIENCE_SECONDS)
        assert "Warning" not in err, err
        self.assert_clean()
        return self.process.returncode, out, err

    def assert_clean(self) -> None:
        """No child lives, no socket is left."""
        pids = [json.loads(path.read_text())["pid"] for path in self.folder.glob("*.seen")]
        wait_for(lambda: not any(map(alive, pids)), "the children's end")
        assert not list(self.folder.glob("socket-*"))

    def events(self) -> list[str]:
        """Which children ended on request, in order."""
        return (self.folder / "events").read_text().splitlines()


class Launcher:
    """Starts launchers, each in a folder of its own, and ends what a failed test left."""

    def __init__(self) -> None:
        self._launched: list[Launched] = []

    def start(
        self,
        *options: str,
        behaviour: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        folder: Path | None = None,
        port: int | None = None,
    ) -> Launched:
        """Run the launcher with the stubs, a socket prefix and a free port, and these options and variables."""
        # Not pytest's folder: its path is too long for a socket.
        folder = folder or Path(tempfile.mkdtemp(prefix="launcher-"))
        (folder / "behaviour.json").write_text(json.dumps(behaviour or {}))
        port = port or free_port()
        place = ["--shard-uds-path", str(folder / "socket"), "--hostname", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-X", "dev", "-c", _DRIVER, str(_STUBS / "stub_server.py")]
        process = subprocess.Popen(
            [*command, str(_STUBS / "stub_router.py"), "--model-id", "some/model", *place, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment() | {"STUB_FOLDER": str(folder)} | (env or {}),
            preexec_fn=_hear_hangups,
        )
        self._launched.append(Launched(process, folder, port))
        return self._launched[-1]

    def end_all(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for launched in self._launched:
            if launched.process.poll() is None:
                launched.process.kill()
            launched.process.communicate()
            shutil.rmtree(launched.folder, ignore_errors=True)


def write_router(folder: Path) -> Path:
    """An executable that plays a router of another maker."""
    path = folder / "some-router"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_STUBS / "stub_router.py"}" "$@"\n')
    path.chmod(0o755)
    return path


def _hear_hangups() -> None:
    """A suite under nohup would make its children deaf to a signal that tests send."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _environment() -> dict[str, str]:
    """What a launcher needs of ours, so that no variable of this machine is taken for an option."""
    kept = ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}
