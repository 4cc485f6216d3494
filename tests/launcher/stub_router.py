"""Plays `text-generation-router`: lists the flags it is told to list, then answers /health over HTTP."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["STUB_FOLDER"])
SOCKET = "--master-shard-uds-path"
BEHAVIOUR = json.loads((FOLDER / "behaviour.json").read_text())


def show_help() -> None:
    print("A router\n\nOptions:")
    for name in BEHAVIOUR["flags"]:
        print(f"      --{name} <VALUE>\n          Not to be confused with `--other-than-{name}`\n")
    print("  -h, --help")


def write_down() -> None:
    seen = {"argv": sys.argv[1:], "env": dict(os.environ), "pid": os.getpid(), "cwd": str(Path.cwd())}
    (FOLDER / "router.partial").write_text(json.dumps(seen))
    (FOLDER / "router.partial").rename(FOLDER / "router.seen")


def stop() -> None:
    time.sleep(0.1)
    with (FOLDER / "events").open("a") as events:
        events.write("router stopped\n")
    sys.exit(0)


def answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def serve() -> None:
    signal.signal(signal.SIGTERM, lambda *_: stop())
    write_down()
    while os.environ.get("AWAIT_SHARDS") and not Path(sys.argv[sys.argv.index(SOCKET) + 1]).exists():
        time.sleep(0.02)
    behaviour = BEHAVIOUR.get("router", "ok")
    if behaviour == "exit":
        print("the router has had enough", file=sys.stderr)
        sys.exit(0)
    if behaviour in ("no packages", "no packages, no end"):
        print("ERROR Failed to import python tokenizer ModuleNotFoundError: No module named 'transformers'", flush=True)
    if behaviour == "no packages":
        sys.exit("thread 'main' panicked: We cannot load a tokenizer")
    if behaviour == "hang":
        time.sleep(60)
    if behaviour == "wait":
        while not (FOLDER / "go").exists():
            time.sleep(0.02)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("the router listens", flush=True)
        while True:
            answer(listener)


if __name__ == "__main__":
    show_help() if "--help" in sys.argv else serve()
