"""What an operator meets when something goes wrong: a clear sentence, the right exit code, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from oracles.lora import save_adapter


def shard_pid(running) -> int:
    """The rank's own process: the one below the launcher whose command line serves."""
    for pid in running.descendants():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "serve" in words:
            return pid
    raise AssertionError("no shard process")


def test_a_killed_shard_ends_everything(launch):
    running = launch()
    pids = running.descendants()
    with ThreadPoolExecutor(1) as pool:
        body = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 2000}}
        asked = pool.submit(httpx.post, f"{running.url}/generate", json=body, timeout=60)
        time.sleep(1.0)
        os.kill(shard_pid(running), signal.SIGKILL)
        assert running.process.wait(60) == 1
        error = asked.exception(30)
        assert error is not None or asked.result().status_code in (424, 500)
    assert "shard" in running.output.lower()
    running.assert_nothing_left(pids)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(launch, signum):
    running = launch()
    pids = running.descendants()
    assert running.stop(signum) == 0, running.output
    running.assert_nothing_left(pids)


@pytest.mark.parametrize("delay", [0.3, 2.0, 4.0])
def test_a_signal_while_starting_leaves_nothing(launch, delay):
    running = launch(ready=False)
    time.sleep(delay)
    pids = running.descendants()
    assert running.stop(signal.SIGINT) == 0, running.output
    running.assert_nothing_left(pids)


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_nobody_gets_the_places_of_a_server_that_starts(launch):
    """Neither a second launcher nor a shard or a router by hand, from before anything listens."""
    first = launch(ready=False)
    holder = f"is taken by process {first.process.pid} (text_generation_launcher)"
    while not Path(f"{first.prefix}-0.lock").exists():
        assert first.process.poll() is None, first.output
        time.sleep(0.02)
    same_port = launch("--port", str(first.port), ready=False)
    same_socket = launch("--shard-uds-path", first.prefix, ready=False)
    shard = [sys.executable, "-m", "text_generation_server", "serve", "smollm2", "--uds-path", first.prefix]
    by_hand = subprocess.run(shard, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    for second, place in ((same_port, f"port {first.port} on 127.0.0.1"), (same_socket, f"{first.prefix}-0")):
        assert second.process.wait(60) == 1
        assert f"{place} {holder}" in second.output and "weights are here" not in second.output
    assert by_hand.returncode == 1 and f"{first.prefix}-0 {holder}" in by_hand.stderr
    first.wait_ready()
    router = [sys.executable, "-m", "text_generation_router", "--hostname", "127.0.0.1", "--port", str(first.port)]
    by_hand = subprocess.run(router, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert by_hand.returncode == 1 and f"port {first.port} on 127.0.0.1 {holder}" in by_hand.stdout
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3}}
    assert httpx.post(f"{first.url}/generate", json=body, timeout=60).status_code == 200
    pids = first.descendants()
    assert first.stop() == 0
    first.assert_nothing_left(pids)


def test_a_missing_model_is_named(launch):
    running = launch(model="/no/such/model", ready=False)
    assert running.process.wait(60) == 1
    assert "/no/such/model" in running.output


def test_an_unsupported_architecture_is_named(launch, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "perceptron", "architectures": ["PerceptronForCausalLM"]}')
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    running = launch(model=str(tmp_path), ready=False)
    assert running.process.wait(60) == 1
    assert "model_type" in running.output and "perceptron" in running.output


def test_a_taken_port_is_named(launch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = launch("--port", str(port), ready=False)
        assert running.process.wait(60) == 1
    assert str(port) in running.output


def test_a_taken_socket_is_named(launch, server):
    running = launch("--shard-uds-path", server.prefix, ready=False)
    assert running.process.wait(60) == 1
    assert server.prefix in running.output
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_limits_that_do_not_fit_are_said(launch):
    running = launch("--cuda-memory-fraction", "0.0001", ready=False)
    assert running.process.wait(90) == 1
    assert "the cache fits" in running.output


@pytest.mark.parametrize("option", [("--quantize", "exl2"), ("--kv-cache-dtype", "int8")])
def test_an_option_without_a_feature_is_refused_by_name(launch, option):
    running = launch(*option, ready=False)
    assert running.process.wait(30) == 2
    assert option[0] in running.output


def test_a_disconnect_frees_the_request(server):
    body = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 4000}}
    with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=60) as stream:
        next(stream.iter_lines())
    deadline = time.monotonic() + 20
    while "tgi_batch_current_size 0" not in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_guessed_tokens_and_adapters_of_others_change_nothing(launch, ranked, tmp_path):
    """A text that repeats itself, and so is guessed, is the one that a server without guesses gives."""
    save_adapter(tmp_path / "law", {"model.layers.3.self_attn.q_proj": (576, 576)}, 4, seed=1, layers_to_transform=3)
    running = launch("--speculate", "4", "--dtype", "float32", "--lora-adapters", f"law={tmp_path / 'law'}")
    body = {"inputs": "one two three four one two three four one two", "parameters": {"max_new_tokens": 40}}
    answers = [httpx.post(f"{where.url}/generate", json=body, timeout=60).json() for where in (running, ranked)]
    assert answers[0] == answers[1]
    adapted = {**body, "adapter_id": "law"}
    assert httpx.post(f"{running.url}/generate", json=adapted, timeout=60).json() not in (answers[0], {})
    unknown = httpx.post(f"{running.url}/generate", json={**body, "adapter_id": "lore"})
    assert unknown.status_code == 422 and "one of law" in unknown.text
    running.stop()
