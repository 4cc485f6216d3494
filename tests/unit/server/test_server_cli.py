"""The commands of `text-generation-server`: what they accept, refuse by name, and hand on."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from loguru import logger
from typer.testing import CliRunner

from text_generation_server import cli
from text_generation_server.choices import Dtype
from text_generation_server.errors import ModelNotFound
from text_generation_server.weights import source


@pytest.fixture(autouse=True)
def own_logging():
    """Both logging systems as they were, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logger.remove()
    logger.add(sys.stderr)


@pytest.fixture
def run(monkeypatch):
    """Run a command line with these variables set and no others that matter."""
    for name in ("ATTENTION", "PREFIX_CACHING", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LORA_ADAPTERS"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **variables: CliRunner().invoke(cli.app, arguments, env=variables)


@pytest.fixture
def served(monkeypatch):
    """Configurations that would have been served; serving ends with code 7."""
    configs = []

    def leave(code):
        raise typer.Exit(code)

    fake = SimpleNamespace(serve=lambda config: configs.append(config) or 7)
    monkeypatch.setitem(sys.modules, "text_generation_server.serve", fake)
    monkeypatch.setattr(cli, "leave", leave)
    return configs


def test_the_command_line_of_a_launcher_is_accepted(run, served):
    result = run(
        *("serve", "owner/model", "--uds-path", "/run/tgi", "--logger-level", "WARN", "--json-output"),
        *("--trust-remote-code", "--sharded", "--dtype", "bfloat16", "--revision", "main"),
        *("--otlp-endpoint", "http://c:4317", "--otlp-service-name", "shard", "--max-input-tokens", "1024"),
        RANK="1", WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="29500",
    )  # fmt: skip
    assert result.exit_code == 7, result.output
    (config,) = served
    assert (config.options.model_id, config.options.revision) == ("owner/model", "main")
    assert (config.options.uds_path, config.options.dtype) == (Path("/run/tgi"), Dtype.BFLOAT16)
    assert config.options.trust_remote_code and config.options.run_ahead
    assert (config.options.otlp_endpoint, config.options.otlp_service_name) == ("http://c:4317", "shard")
    assert (config.ranks.rank, config.ranks.world_size) == (1, 2)


def test_options_that_ask_for_nothing_are_accepted(run, served):
    arguments = ("--lora-ids", "empty", "--speculate", "0", "--disable-flashinfer", "--no-run-ahead", "--no-sharded")
    assert run("serve", "model", *arguments).exit_code == 7
    assert (served[0].options.run_ahead, served[0].options.speculate) == (False, 0)
    assert not served[0].adapters.asked


def test_steps_with_prompts_beside_answers_have_a_bound(run, served):
    assert run("serve", "model", "--max-mixed-tokens", "64").exit_code == 7
    assert served[0].options.max_mixed_tokens == 64
    assert run("serve", "model", "--max-mixed-tokens", "0").exit_code == 2


def test_adapters_come_by_variable_and_by_option(run, served):
    assert run("serve", "model", "--lora-ids", "a;owner/b", LORA_ADAPTERS="law=/adapters/law").exit_code == 7
    assert [source.name for source in served[0].adapters.named] == ["law", "a", "owner/b"]


@pytest.mark.parametrize(
    ("arguments", "asked"), [((), None), (("--use-flashinfer",), True), (("--disable-flashinfer",), False)]
)
def test_flashinfer_is_wanted_or_not(run, served, arguments, asked):
    assert run("serve", "model", *arguments).exit_code == 7
    assert served[0].options.use_flashinfer is asked


@pytest.mark.parametrize("asked", [True, False])
def test_invariance_is_wanted_or_not(run, served, asked):
    assert run("serve", "model", *(["--deterministic"] if asked else [])).exit_code == 7
    assert served[0].options.deterministic is asked


@pytest.mark.parametrize("load_format", ["auto", "safetensors", "dummy"])
def test_weights_have_a_source(run, served, load_format):
    assert run("serve", "model", "--load-format", load_format).exit_code == 7
    assert served[0].options.load_format == load_format
    assert run("serve", "model", "--load-format", "magic").exit_code == 2


@pytest.mark.parametrize("kept", ["auto", "fp8_e4m3fn", "fp8_e4m3", "fp8_e5m2"])
def test_keys_and_values_are_kept_in_a_type(run, served, kept):
    assert run("serve", "model", "--kv-cache-dtype", kept).exit_code == 7
    assert served[0].options.kv_cache_dtype == kept
    assert run("serve", "model", "--kv-cache-dtype", "fp8").exit_code == 2


def test_speculation_has_a_depth(run, served):
    assert run("serve", "model", "--speculate", "3").exit_code == 7
    assert served[0].options.speculate == 3
    assert run("serve", "model", "--speculate", "-1").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--diffusion",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_features_that_do_not_exist_are_refused_by_name(run, served, arguments):
    result = run("serve", "model", *arguments)
    assert result.exit_code == 2
    assert f"Error: {' '.join(arguments)} is not served yet" in result.stderr
    assert served == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("serve",), "Missing argument"),
        (("serve", "model", "--dtype", "int3"), "int3"),
        (("serve", "model", "--logger-level", "LOUD"), "--logger-level is 'LOUD'"),
        (("serve", "model", "--sharded"), "RANK is not set"),
        (("serve", "model", "--unheard-of"), "--unheard-of"),
        (("quantize", "model", "out", "--groupsize", "128"), "quantize is not served yet"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_is_wrong(run, served, arguments, word):
    result = run(*arguments)
    assert (result.exit_code, served) == (2, [])
    assert word in result.stderr


def test_a_bad_variable_is_named(run, served):
    result = run("serve", "model", ATTENTION="magic")
    assert (result.exit_code, served) == (2, [])
    assert "ATTENTION is 'magic'" in result.stderr


def test_download_weights_hands_everything_on(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(source, "prepare", lambda *args, **kwargs: calls.append(args) or tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(7))
    (tmp_path / "training_args.bin").write_bytes(bytes(5))
    arguments = ("--extension", ".bin", "--revision", "v1", "--no-auto-convert", "--merge-lora", "--json-output")
    arguments += ("--quantize", "gguf")
    result = run("download-weights", "owner/model", *arguments, HF_HUB_OFFLINE="1")
    assert result.exit_code == 0, result.output
    ((model_id, revision, extension, hub, trust_remote_code, auto_convert, _report, packed),) = calls
    assert (model_id, revision, extension, hub.offline) == ("owner/model", "v1", ".bin", True)
    assert (trust_remote_code, auto_convert, packed) == (False, False, True)
    reported = json.loads(result.stdout.splitlines()[-1])["record"]["extra"]
    assert reported == {"rank": 0, "phase": "download", "path": str(tmp_path), "bytes": 7}


def test_adapters_are_made_local_by_either_command(run, tmp_path):
    for name in ("law", "verse"):
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name / file).write_text("{}")
    law, verse = str(tmp_path / "law"), str(tmp_path / "verse")
    assert run("download-weights", law, "--extension", ".safetensors").exit_code == 0
    refused = run("download-weights", law, "--extension", ".safetensors", "--merge-lora")
    assert refused.exit_code == 1 and "is a LoRA adapter" in refused.stderr
    assert run("download-lora-adapters", f"{law};{verse}").exit_code == 0
    missing = run("download-lora-adapters", f"{law};{verse}/no")
    assert missing.exit_code == 1 and f"there is no directory {verse}/no" in missing.stderr


def test_download_weights_is_content_with_a_config_for_random_weights(run, tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 300}')
    arguments = ("download-weights", str(tmp_path), "--load-format", "dummy", "--json-output")
    result = run(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert result.exit_code == 0, result.output
    directory = Path(json.loads(result.stdout.splitlines()[-1])["record"]["extra"]["path"])
    assert {path.name for path in directory.iterdir()} == {"config.json", "tokenizer.json"}


@pytest.mark.parametrize(("load_format", "converts"), [("auto", True), ("safetensors", False)])
def test_safetensors_are_not_converted_to(run, monkeypatch, tmp_path, load_format, converts):
    calls = []
    monkeypatch.setattr(source, "prepare", lambda *args, **kwargs: calls.append(args[5]) or tmp_path)
    assert run("download-weights", "owner/model", "--load-format", load_format).exit_code == 0
    assert calls == [converts]


def test_download_weights_says_why_it_failed(run, monkeypatch):
    def prepare(*_, **__):
        raise ModelNotFound("there is no such model; check the spelling")

    monkeypatch.setattr(source, "prepare", prepare)
    result = run("download-weights", "owner/model")
    assert result.exit_code == 1
    assert "Error: there is no such model; check the spelling" in result.stderr
