"""Plays `text-generation-server`: writes down how it was called, then behaves as the file `behaviour.json` says.

Files in the folder named by STUB_FOLDER: `<role>.seen` (what was seen, when ready to be looked at), `events` (who
stopped, in order), `die-<rank>` (appears: that rank dies).
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Never

FOLDER = Path(os.environ["STUB_FOLDER"])
BEHAVIOUR = json.loads((FOLDER / "behaviour.json").read_text())


def write_down(role: str) -> None:
    seen = {"argv": sys.argv[1:], "env": dict(os.environ), "pid": os.getpid(), "cwd": str(Path.cwd())}
    partial = FOLDER / f"{role}.partial"
    partial.write_text(json.dumps(seen))
    partial.rename(FOLDER / f"{role}.seen")


def say(text: str, level: str = "INFO", **extra: object) -> None:
    print(json.dumps({"text": text + "\n", "record": {"level": {"name": level}, "extra": extra}}), flush=True)


def note(event: str) -> None:
    with (FOLDER / "events").open("a") as events:
        events.write(event + "\n")


def hang(until: Path | None = None) -> None:
    while until is None or not until.exists():
        time.sleep(0.02)


def download() -> None:
    write_down("download")
    behaviour = BEHAVIOUR.get("download", "ok")
    if behaviour == "hang":
        hang()
    if behaviour == "fail":
        sys.exit("no weights at all in this place")
    say("half", phase="download", done=512, total=1024)
    say("done", phase="download", path=str(FOLDER), bytes=3 << 20)


def serve() -> None:
    role = f"shard-{os.environ['RANK']}"
    path = f"{sys.argv[sys.argv.index('--uds-path') + 1]}-{os.environ['RANK']}"
    signal.signal(signal.SIGTERM, lambda *_: stop(role, path))
    write_down(role)
    behaviour = BEHAVIOUR.get(role, BEHAVIOUR.get("shards", "ok"))
    say("loading on the way", phase="load", done=1 << 20, total=2 << 20)
    print("a line that is no JSON", flush=True)
    say(f"greetings from {role}", level="WARNING")
    if behaviour == "die":
        print("a traceback\nthe model does not fit", file=sys.stderr)
        sys.exit(7)
    if behaviour == "hang":
        hang()
    if behaviour == "late":
        hang(FOLDER / "go")
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "flood":
        print("\n".join(f"warning {number}" for number in range(20_000)), file=sys.stderr)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        say("warm", phase="warmup", tokens=123456, bytes=5 << 30)
        hang(FOLDER / f"die-{os.environ['RANK']}")
    print("out of luck", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def stop(role: str, path: str) -> Never:
    note(f"{role} stopped")
    Path(path).unlink(missing_ok=True)
    sys.exit(0)


if __name__ == "__main__":
    download() if sys.argv[1] == "download-weights" else serve()
