"""Our server under another maker's launcher, our launcher under everything (docs/conformance.md#launcher)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conformance.caller import Caller, ids_of
from conformance.tiny_model import tiny_model
from mocks.launched import Launcher, write_router

READY = "ready after"
PATIENCE_S = 120
SERVER = Path(sys.executable).with_name("text-generation-server")
LEVELS = {"TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"}

CHILD = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ENABLE_HF_TRANSFER": "1"}
SHARD = CHILD | {
    "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "SAFETENSORS_FAST_GPU": "1",
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1", "CUDA_MEMORY_FRACTION": "0.01", "ATTENTION": "flashinfer",
    "PREFIX_CACHING": "true", "MAX_TOTAL_TOKENS": "512", "CUDA_GRAPHS": "1,2,4,8,16,32", "OMP_NUM_THREADS": "1",
}  # fmt: skip
"""What the launchers of 2.x and 3.x set for their children (docs/launcher.md#children)."""


def server(*arguments: object, env: dict[str, str]) -> subprocess.Popen[str]:
    """One of our commands, started as a launcher does it; its stdin is a pipe that is closed at once."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    process = subprocess.Popen(
        [SERVER, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=kept | env, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    return process


class ServedModel:
    """The tiny model served by processes of ours, as a real launcher starts them: loud, and with warnings only."""

    def __init__(self, folder: Path) -> None:
        self.model = tiny_model(folder)
        common = ["--json-output", "--otlp-service-name", "text-generation-inference.router"]
        self.loud, self.quiet = (
            server("serve", self.model, "--uds-path", folder / name, "--logger-level", level, *common, env=SHARD)
            for name, level in (("loud", "INFO"), ("quiet", "WARN"))
        )
        self.sockets = {self.loud: folder / "loud-0", self.quiet: folder / "quiet-0"}
        for process, path in self.sockets.items():
            deadline = time.monotonic() + PATIENCE_S
            while not path.exists():
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.05)

    def ask(self, process: subprocess.Popen[str]) -> list[int]:
        """Warm up and generate, as a 3.x router would."""
        caller = Caller(self.sockets[process], "v3")
        caller.clear()
        warm = caller.request(0, "_test " * 64, 1, truncate=64, add_special_tokens=True)
        limits = caller.warmup(warm, prefill=64)
        assert 64 <= limits.max_total_tokens <= 512 <= limits.max_supported_total_tokens
        slots = range(1, 20)
        answer = caller.answer(caller.request(1, "hello", 8, slots=slots, add_special_tokens=True))
        caller.close()
        return ids_of(answer)


@pytest.fixture(scope="module")
def served():
    folder = Path(tempfile.mkdtemp(prefix="served-"))
    model = ServedModel(folder)
    yield model
    for process in model.sockets:
        process.kill()
        process.communicate()
    shutil.rmtree(folder)


def test_c107_a_launcher_downloads_starts_and_serves(served):
    options = ["--extension", ".safetensors", "--logger-level", "INFO", "--json-output", "--merge-lora"]
    download = server("download-weights", served.model, *options, env=CHILD)
    assert len(served.ask(served.loud)) == 8
    out, err = download.communicate(timeout=PATIENCE_S)
    assert download.returncode == 0 and "Error" not in err
    assert all(json.loads(line)["record"]["level"]["name"] in LEVELS for line in out.splitlines())


def test_c108_warn_is_a_level(served):
    assert served.quiet.poll() is None
    assert len(served.ask(served.quiet)) == 8


def test_c110_a_closed_stdin_is_nothing(served):
    # Both processes have had theirs closed since their start.
    assert [process.poll() for process in served.sockets] == [None, None]
    assert served.ask(served.loud) == served.ask(served.quiet)


def test_c109_c111_lines_are_json_and_a_signal_ends_it(served):
    # The last test of these processes: it ends them.
    for process, path in served.sockets.items():
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0 and "Error" not in err
        assert not path.exists()
        for line in out.splitlines():
            entry = json.loads(line)
            assert entry["text"].endswith("\n") and entry["record"]["level"]["name"] in LEVELS
            assert len(line.encode()) < 32 * 1024
        assert ("Set, but without effect here" in out) == (process is served.loud)


def test_c112_a_stale_socket_is_no_readiness(launcher: Launcher):
    first = launcher.start(behaviour={"shards": "hang"})
    first.seen("shard-0")
    first.end(signal.SIGTERM)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(first.folder / "socket-0"))
    again = launcher.start(folder=first.folder)
    again.read_until(READY)
    assert again.end(signal.SIGTERM)[0] == 0


def test_c113_a_shard_that_dies_while_loading_ends_all(launcher: Launcher):
    code, out, err = launcher.start("--num-shard", "2", behaviour={"shard-1": "die", "shard-0": "hang"}).end()
    assert code == 1 and "the model does not fit" in err and READY not in out


def test_c114_a_router_that_exits_ends_all(launcher: Launcher):
    running = launcher.start(behaviour={"router": "exit"})
    assert running.end()[0] == 1
    assert running.events() == ["shard-0 stopped"]


def test_c115_the_router_is_stopped_before_the_shards(launcher: Launcher):
    running = launcher.start("--num-shard", "2")
    running.read_until(READY)
    assert running.end(signal.SIGINT)[0] == 0
    events = running.events()
    assert events[0] == "router stopped" and sorted(events[1:]) == ["shard-0 stopped", "shard-1 stopped"]


@pytest.mark.parametrize(
    ("options", "devices", "shards"),
    [([], "0,1", 2), (["--sharded", "false", "--num-shard", "2"], "0", 2), (["--num-shard", "1"], "0,1", 1)],
)
def test_c116_a_shard_for_each_visible_device(launcher: Launcher, options, devices, shards):
    running = launcher.start(*options, env={"CUDA_VISIBLE_DEVICES": devices})
    running.read_until(READY)
    started = sorted(path.stem for path in running.folder.glob("shard-*.seen"))
    assert started == [f"shard-{rank}" for rank in range(shards)]
    assert running.end(signal.SIGTERM)[0] == 0


def test_c116_one_device_cannot_be_sharded(launcher: Launcher):
    code, _, err = launcher.start("--sharded", "true", env={"CUDA_VISIBLE_DEVICES": "0"}).end()
    assert code == 1 and "--sharded" in err


def test_c117_the_old_and_the_new_name_of_a_limit_exclude_each_other(launcher: Launcher):
    code, _, err = launcher.start("--max-input-length", "10", "--max-input-tokens", "10").end()
    assert code == 1 and "--max-input-length" in err


OLD_FLAGS = """
max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens max-input-tokens max-total-tokens
waiting-served-ratio max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens max-batch-size hostname port
master-shard-uds-path tokenizer-name tokenizer-config-path revision validation-workers json-output otlp-endpoint
cors-allow-origin ngrok ngrok-authtoken ngrok-edge messages-api-enabled disable-grammar-support max-client-batch-size
"""
"""What 2.0.4 lists."""


def router_of(launcher: Launcher, tmp_path: Path, flags: list[str], env: dict[str, str] | None = None) -> dict:
    """What a router of another maker is started with."""
    router = write_router(tmp_path)
    running = launcher.start("--router", str(router), behaviour={"flags": flags}, env=env)
    seen = running.seen("router")
    assert running.end(signal.SIGTERM)[0] == 0
    return seen


def test_c118_a_2_3_1_router_is_told_of_attention_and_prefix_caching(launcher: Launcher, tmp_path):
    flags = [*OLD_FLAGS.split(), "api-key", "otlp-service-name"]  # and usage-stats, for which port 9000 would be needed
    env = router_of(launcher, tmp_path, flags)["env"]
    assert env["ATTENTION"] in ("flashinfer", "flashdecoding", "paged")
    assert env["USE_PREFIX_CACHING"] == env["PREFIX_CACHING"]


def test_c119_a_2_0_4_router_gets_its_own_flags_and_numbers(launcher: Launcher, tmp_path):
    argv = router_of(launcher, tmp_path, OLD_FLAGS.split())["argv"]
    assert {word for word in argv if word.startswith("--")} <= {f"--{flag}" for flag in OLD_FLAGS.split()}
    for name in ("--max-input-tokens", "--max-total-tokens"):
        assert argv[argv.index(name) + 1].isdecimal()


def test_c120_a_flag_in_the_environment_is_spelt_as_routers_read_it(launcher: Launcher, tmp_path):
    flags = [*OLD_FLAGS.split(), "api-key", "usage-stats", "trust-remote-code", "payload-limit", "prometheus-port"]
    for variables in ({"TRUST_REMOTE_CODE": "true"}, {"JSON_OUTPUT": "1"}):
        running = launcher.start("--router", str(write_router(tmp_path)), behaviour={"flags": flags}, env=variables)
        if variables == {"JSON_OUTPUT": "1"}:
            code, _, err = running.end()
            assert code == 2 and "JSON_OUTPUT" in err
        else:
            assert running.seen("router")["env"].get("TRUST_REMOTE_CODE") in (None, "true")
            assert running.end(signal.SIGTERM)[0] == 0


def test_c121_two_launchers_share_a_host(launcher: Launcher, tmp_path):
    router = str(write_router(tmp_path))
    both = [launcher.start("--router", router, behaviour={"flags": OLD_FLAGS.split()}) for _ in range(2)]
    folders = set()
    for running in both:
        running.read_until(READY)
        folders.add(running.seen("router")["cwd"])
    assert len(folders) == 2
    assert [running.end(signal.SIGTERM)[0] for running in both] == [0, 0]
