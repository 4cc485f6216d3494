"""The command as a process of its own: start, signals, exit codes, and what it says when it cannot start."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from loguru import logger

from mocks.fake_shard import FakeShard, save_tokenizer
from mocks.running_router import free_port, running_router
from text_generation_router.errors import StartError
from text_generation_server.reservations.ports import PortReservation


@pytest.fixture
async def shard(directory):
    async with FakeShard(save_tokenizer(directory), directory / "s") as running:
        yield running
    assert running.violations == []


@pytest.fixture
async def start(directory):
    """Start the command with its output piped; what still runs at the end is killed."""
    started = []

    async def start(port: int, *more: str) -> asyncio.subprocess.Process:
        flags = ["--hostname", "127.0.0.1", "--port", str(port), "--prometheus-port", "0"]
        flags += ["--tokenizer-name", str(directory), "--max-batch-prefill-tokens", "256"]
        flags += ["--master-shard-uds-path", str(directory / "s-0"), *more]
        command = [sys.executable, "-m", "text_generation_router", *flags]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipe = asyncio.subprocess.PIPE
        started.append(await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ready(process: asyncio.subprocess.Process) -> list[str]:
    """Wait until it listens; the lines it logged on the way."""
    lines = []
    while b"listening on" not in (line := await process.stdout.readline()):
        assert line, (await process.communicate())[1]
        lines.append(line.decode())
    return [*lines, line.decode()]


async def test_it_says_that_it_listens_when_it_does(directory):
    """Who waits for that line may connect at once."""
    refused = []

    def connect(message):
        port = int(message.record["message"].rsplit(":", 1)[1])
        with socket.socket() as client:
            refused.append(client.connect_ex(("127.0.0.1", port)))

    sink = logger.add(connect, filter=lambda record: "listening on" in record["message"])
    async with running_router(directory):
        logger.remove(sink)
    assert refused == [0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_requests_finish(shard, start, number):
    port = free_port()
    process = await start(port, "--json-output")
    lines = [json.loads(line) for line in await ready(process)]
    assert any("Cache of 4096 tokens" in line["message"] for line in lines)
    assert all(line["level"] == "INFO" for line in lines)
    shard.running.clear()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 5}}
        running = asyncio.ensure_future(client.post("/generate", json=body))
        while "Prefill" not in shard.steps():
            assert not running.done(), await running
            await asyncio.sleep(0.01)
        process.send_signal(number)
        with pytest.raises(httpx.TransportError):  # refused, or accepted and hung up on at the last moment
            while True:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as other:
                    await other.get("/info")
        shard.running.set()
        assert (await running).status_code == 200
    _, errors = await process.communicate()
    assert process.returncode == 0 and errors == b""


async def test_it_waits_for_a_shard_that_still_loads_if_it_is_told_to(directory, monkeypatch, start):
    monkeypatch.setenv("AWAIT_SHARDS", "true")
    shard = FakeShard(save_tokenizer(directory), directory / "s")  # the model's files are read while it waits
    process = await start(free_port())
    answer = asyncio.ensure_future(ready(process))
    await asyncio.wait((answer,), timeout=1.0)
    assert not answer.done()
    async with shard:
        await answer
        process.terminate()
        await process.communicate()
        assert process.returncode == 0


async def test_a_lost_shard_ends_it_with_one(shard, start):
    process = await start(free_port())
    await ready(process)
    await shard.stop()
    output, _ = await process.communicate()
    assert process.returncode == 1 and b"A shard is gone" in output


async def test_a_signal_during_warm_up_ends_it_at_once(shard, start):
    shard.running.clear()  # ClearCache, the first call, hangs
    process = await start(free_port())
    while not shard.calls:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
    shard.running.set()


async def test_it_says_why_it_cannot_start(directory, shard, start):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    with taken:
        cases = {
            "no socket at": ["--master-shard-uds-path", str(directory / "nothing")],
            "cannot listen on 127.0.0.1": ["--port", str(taken.getsockname()[1])],
            "not enough memory for --max-batch-prefill-tokens 5000": ["--max-batch-prefill-tokens", "5000"],
            "--ngrok": ["--ngrok"],
        }
        processes = [await start(free_port(), *flags) for flags in cases.values()]
        for text, process in zip(cases, processes, strict=True):
            output, errors = await process.communicate()
            assert process.returncode == 1 and text in (output + errors).decode()
            assert "Traceback" not in (output + errors).decode()


async def test_a_second_router_names_the_first_that_does_not_listen_yet(shard, start):
    shard.running.clear()  # ClearCache, the first call, hangs
    port = free_port()
    first = await start(port)
    while not shard.calls:
        await asyncio.sleep(0.01)
    second = await start(port)
    output, _ = await second.communicate()
    assert second.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken by process {first.pid} (text_generation_router)" in output.decode()
    shard.running.set()
    await ready(first)


async def test_a_router_that_cannot_listen_ends_and_says_so(directory, monkeypatch):
    """Its port is taken when it is shared with the launcher's children, and others come first."""
    thieves = []

    def share_and_lose(place):
        place.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thieves.append(socket.create_server(("127.0.0.1", place.port)))

    monkeypatch.setattr(PortReservation, "share", share_and_lose)
    with pytest.raises(StartError, match=r"cannot listen.*ddress already in use"):
        async with running_router(directory):
            pass
    thieves[0].close()


async def test_a_socket_that_nobody_serves(directory, start):
    save_tokenizer(directory)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(directory / "s-0"))
        process = await start(free_port())
        output, _ = await process.communicate()
    assert process.returncode == 1 and b"no shard answers at" in output


async def test_a_directory_without_a_tokenizer(directory, shard, start):
    (directory / "tokenizer.json").write_text("{}")
    process = await start(free_port())
    output, _ = await process.communicate()
    assert process.returncode == 1 and b"no tokenizer: " in output and b"Traceback" not in output


def test_neither_torch_nor_transformers_is_imported():
    code = "import sys, text_generation_router.serve; print(*{'torch', 'transformers'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
