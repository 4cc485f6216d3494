"""What download, shards and routers are started with: arguments, environment, folder (docs/launcher.md#children)."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from mocks.launched import Launched, Launcher, free_port, write_router

OLD_FLAGS = """
max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens max-input-tokens max-total-tokens
waiting-served-ratio max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens max-batch-size hostname port
master-shard-uds-path tokenizer-name tokenizer-config-path revision validation-workers json-output otlp-endpoint
cors-allow-origin ngrok ngrok-authtoken ngrok-edge messages-api-enabled disable-grammar-support max-client-batch-size
"""
"""Those of 2.0.4."""

NEW_FLAGS = f"{OLD_FLAGS} api-key usage-stats trust-remote-code payload-limit prometheus-port"
"""Those of 3.3."""


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def seen_and_ended(running: Launched, *roles: str) -> list[dict[str, Any]]:
    seen = [running.seen(role) for role in roles]
    assert running.end(signal.SIGTERM)[0] == 0
    return seen


def test_every_rank_gets_its_place(launcher: Launcher):
    port = str(free_port())
    running = launcher.start("--num-shard", "2", "--master-port", port, env={"LOG_LEVEL": "warn", "OTHER": "kept"})
    for rank, seen in enumerate(seen_and_ended(running, "shard-0", "shard-1")):
        env = seen["env"]
        assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_ADDR"], env["MASTER_PORT"]) == (
            str(rank),
            "2",
            "localhost",
            port,
        )
        assert (env["ATTENTION"], env["PREFIX_CACHING"], env["CUDA_MEMORY_FRACTION"]) == ("flashinfer", "true", "1")
        assert env["OTHER"] == "kept" and "LOG_LEVEL" not in env and "CUDA_GRAPHS" not in env
        argv = seen["argv"]
        assert argv[:2] == ["serve", str(running.folder)] and "--sharded" in argv
        assert value(argv, "--uds-path") == str(running.folder / "socket")
        assert value(argv, "--logger-level") == "WARN" and "--json-output" in argv and "--lora-ids" not in argv


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="for hosts without GPUs")
@pytest.mark.parametrize("given", [{}, {"GLIBC_TUNABLES": "mine"}], ids=["default", "given"])
def test_a_shard_without_a_gpu_has_large_pages_unless_told_otherwise(launcher: Launcher, given: dict[str, str]):
    shard, router = seen_and_ended(launcher.start(env=given), "shard-0", "router")
    assert router["env"].get("GLIBC_TUNABLES") == given.get("GLIBC_TUNABLES")
    found = shard["env"]["GLIBC_TUNABLES"]
    assert found == "mine" if given else "glibc.malloc.hugetlb=1" in found


@pytest.mark.parametrize("name", [None, "mine"])
def test_shards_and_router_send_traces_to_the_same_place(launcher: Launcher, name: str | None):
    named = [] if name is None else ["--otlp-service-name", name]
    running = launcher.start("--otlp-endpoint", "http://c:4317", *named)
    shard, router = (seen["argv"] for seen in seen_and_ended(running, "shard-0", "router"))
    assert value(shard, "--otlp-endpoint") == value(router, "--otlp-endpoint") == "http://c:4317"
    assert value(router, "--otlp-service-name") == (name or "text-generation-inference.router")
    if name is None:
        assert "--otlp-service-name" not in shard
    else:
        assert value(shard, "--otlp-service-name") == name


def test_shards_are_told_what_was_asked_for(launcher: Launcher):
    running = launcher.start(
        *["--dtype", "float32", "--max-input-tokens", "100", "--max-total-tokens", "200", "--max-batch-size", "8"],
        *["--rope-factor", "2", "--enable-prefill-logprobs", "--disable-custom-kernels", "--disable-flashinfer"],
        *["--cuda-memory-fraction", "0.5", "--huggingface-hub-cache", "/cache", "--trust-remote-code"],
        *["--watermark-gamma", "0.25", "--watermark-delta", "1.5", "--deterministic", "--quantize", "eetq"],
        *["--kv-cache-dtype", "fp8_e5m2"],
        *["--max-mixed-tokens", "77"],
        *["--lora-adapters", "law=/adapters/law", "--lora-ids", "a;owner/b", "--lora-dir", "/adapters"],
        *["--max-device-loras", "3", "--max-lora-rank", "8", "--max-cpu-loras", "9"],
        *["--max-lora-expert-rank", "4", "--unknown-adapters-as-base"],
        env={"HF_API_TOKEN": "secret", "CUDA_GRAPHS": "0", "ATTENTION": "paged"},
    )
    (seen,) = seen_and_ended(running, "shard-0")
    argv, env = seen["argv"], seen["env"]
    assert value(argv, "--dtype") == "float32" and value(argv, "--max-input-tokens") == "100"
    assert "--trust-remote-code" in argv and "--disable-flashinfer" in argv and "--sharded" not in argv
    assert value(argv, "--max-mixed-tokens") == "77"
    assert "--deterministic" in argv and value(argv, "--lora-ids") == "a;owner/b"
    assert value(argv, "--quantize") == "eetq"
    assert value(argv, "--kv-cache-dtype") == "fp8_e5m2"
    expected = {
        "MAX_TOTAL_TOKENS": "200",
        "MAX_BATCH_SIZE": "8",
        "CUDA_GRAPHS": "0",
        "NCCL_NVLS_ENABLE": "0",
        "ROPE_SCALING": "linear",
        "ROPE_FACTOR": "2",
        "REQUEST_LOGPROBS": "1",
        "WATERMARK_GAMMA": "0.25",
        "WATERMARK_DELTA": "1.5",
        "DISABLE_CUSTOM_KERNELS": "True",
        "LORA_ADAPTERS": "law=/adapters/law",
        "LORA_DIR": "/adapters",
        "MAX_DEVICE_LORAS": "3",
        "MAX_LORA_RANK": "8",
        "MAX_CPU_LORAS": "9",
        "MAX_LORA_EXPERT_RANK": "4",
        "UNKNOWN_ADAPTERS_AS_BASE": "true",
        "CUDA_MEMORY_FRACTION": "0.5",
        "HUGGINGFACE_HUB_CACHE": "/cache",
        "HF_TOKEN": "secret",
        "ATTENTION": "paged",
        "PREFIX_CACHING": "0",
    }
    assert expected.items() <= env.items()


def test_the_download_is_asked_for_the_model(launcher: Launcher):
    running = launcher.start("--revision", "main", "--weights-cache-override", "/w", env={"LOG_LEVEL": "info"})
    (seen,) = seen_and_ended(running, "download")
    assert seen["argv"][:2] == ["download-weights", "some/model"]
    assert value(seen["argv"], "--revision") == "main" and "--merge-lora" in seen["argv"]
    assert seen["env"]["WEIGHTS_CACHE_OVERRIDE"] == "/w" and "LOG_LEVEL" not in seen["env"]


def test_download_and_shards_are_told_what_stays_packed(launcher: Launcher):
    for seen in seen_and_ended(launcher.start("--quantize", "gguf"), "download", "shard-0"):
        assert value(seen["argv"], "--quantize") == "gguf"
    (seen,) = seen_and_ended(launcher.start("--quantize", "eetq"), "download")
    assert "--quantize" not in seen["argv"]


def test_download_and_shards_are_told_the_weights_form(launcher: Launcher):
    running = launcher.start("--load-format", "dummy")
    for seen in seen_and_ended(running, "download", "shard-0"):
        assert value(seen["argv"], "--load-format") == "dummy"
    for seen in seen_and_ended(launcher.start("--load-format", "auto"), "download", "shard-0", "router"):
        assert "--load-format" not in seen["argv"]


def test_the_embedded_router_gets_flags_and_no_variables_that_repeat_them(launcher: Launcher):
    env = {"MAX_BEST_OF": "3", "API_KEY": "secret", "LOG_LEVEL": "debug", "TRUST_REMOTE_CODE": "true"}
    running = launcher.start("--cors-allow-origin", "a", "--cors-allow-origin", "b", "--max-best-of", "7", env=env)
    (seen,) = seen_and_ended(running, "router")
    argv, env = seen["argv"], seen["env"]
    assert value(argv, "--max-best-of") == "7" and "--trust-remote-code" in argv
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--cors-allow-origin"] == ["a", "b"]
    assert value(argv, "--master-shard-uds-path") == str(running.folder / "socket-0")
    assert value(argv, "--tokenizer-name") == str(running.folder)
    assert value(argv, "--served-model-name") == "some/model"
    assert value(argv, "--waiting-served-ratio") == "0.3" and value(argv, "--graceful-termination-timeout") == "90"
    assert value(argv, "--max-batch-prefill-tokens") in ("1024", "4096")  # without a GPU, with one
    assert "--max-input-tokens" not in argv and "--revision" not in argv
    assert "secret" not in argv and env["API_KEY"] == "secret" and env["LOG_LEVEL"] == "debug"
    assert "MAX_BEST_OF" not in env and "TRUST_REMOTE_CODE" not in env
    assert (env["ATTENTION"], env["PREFIX_CACHING"], env["USE_PREFIX_CACHING"]) == ("flashinfer", "true", "true")


@pytest.mark.parametrize(("given", "passed"), [("a.jinja", str(Path("a.jinja").absolute())), ("{{ a }}", "{{ a }}")])
def test_the_router_finds_a_chat_template_wherever_it_runs(launcher: Launcher, given: str, passed: str):
    (seen,) = seen_and_ended(launcher.start("--chat-template", given), "router")
    assert value(seen["argv"], "--chat-template") == passed


def test_limits_come_from_config_json(launcher: Launcher, tmp_path: Path):
    running = launcher.start(behaviour={"download": "ok"})
    running.end(signal.SIGTERM)
    config = '{"model_type": "another", "max_position_embeddings": 512, "head_dim": 96}'
    (running.folder / "config.json").write_text(config)
    again = launcher.start(folder=running.folder)
    shard, router = seen_and_ended(again, "shard-0", "router")
    assert value(router["argv"], "--max-batch-prefill-tokens") == "512"
    assert (shard["env"]["ATTENTION"], shard["env"]["PREFIX_CACHING"]) == ("flashinfer", "true")


def test_an_old_router_gets_only_its_flags_and_numeric_limits(launcher: Launcher, tmp_path: Path):
    router = write_router(tmp_path)
    running = launcher.start("--router", str(router), "-g", "5", behaviour={"flags": OLD_FLAGS.split()})
    shard, seen = seen_and_ended(running, "shard-0", "router")
    argv = seen["argv"]
    flags = {word for word in argv if word.startswith("--")}
    assert flags <= {f"--{name}" for name in OLD_FLAGS.split()} and "--max-client-batch-size" in flags
    limits = [value(argv, f"--max-{name}-tokens") for name in ("input", "total", "batch-prefill")]
    assert limits == ["4095", "4096", "4145"]
    assert shard["env"]["MAX_TOTAL_TOKENS"] == "4096"


def test_a_new_router_leaves_limits_to_warm_up_and_reports_nothing(launcher: Launcher, tmp_path: Path):
    write_router(tmp_path)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    running = launcher.start("--router", "some-router", behaviour={"flags": NEW_FLAGS.split()}, env=path)
    text = running.read_until("ready after")
    (seen,) = seen_and_ended(running, "router")
    argv = seen["argv"]
    assert "--max-input-tokens" not in argv and value(argv, "--usage-stats") == "off"
    assert value(argv, "--payload-limit") == "2000000" and "--json-output" not in argv
    assert "\nthe router listens\n" in text
    assert Path(seen["cwd"]) not in (Path.cwd(), running.folder) and not Path(seen["cwd"]).exists()


@pytest.mark.parametrize("option", ["--api-key", "--payload-limit"])
def test_an_option_the_router_lacks_is_refused_by_name(launcher: Launcher, tmp_path: Path, option: str):
    router = write_router(tmp_path)
    running = launcher.start("--router", str(router), option, "7", behaviour={"flags": OLD_FLAGS.split()})
    code, _, err = running.end()
    assert code == 1 and f"has no {option}" in err
    assert not (running.folder / "download.seen").exists()


def test_a_router_that_is_none_is_refused(launcher: Launcher, tmp_path: Path):
    code, _, err = launcher.start("--router", "no-such-router").end()
    assert code == 1 and "--router no-such-router" in err
    code, _, err = launcher.start("--router", str(write_router(tmp_path)), behaviour={"flags": ["port"]}).end()
    assert code == 1 and "is no text-generation-router" in err


def test_a_metrics_port_that_was_asked_for_must_be_free(launcher: Launcher):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = launcher.start("--prometheus-port", str(taken.getsockname()[1])).end()
    assert code == 1 and "--prometheus-port" in err
