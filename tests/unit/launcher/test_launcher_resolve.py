"""What the launcher decides by itself: ranks, attention, prefix caching, limits (docs/launcher.md#number-of-shards)."""

import json
import subprocess
import sys

import pytest

from text_generation_launcher.errors import LaunchError
from text_generation_launcher.hardware import Gpu, Hardware
from text_generation_launcher.modelfacts import ModelFacts, facts_of, read_facts
from text_generation_launcher.options import Options, Switch
from text_generation_launcher.prefill_budget import compute_optimal_tokens, memory_tokens
from text_generation_launcher.resolve import ResolvedArgs, check_limits, resolve, resolve_num_shard
from text_generation_launcher.settings import read_environment
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec

DEFAULTS = Options()
NO_GPU = Hardware((), 4)
H100 = Gpu("NVIDIA H100 80GB HBM3", 80 << 30, 9.0)
NEW_CARD = Gpu("some new card", 80 << 30, 10.0)
TWO_GPUS = Hardware((H100, H100), 4)
LLAMA = {
    "model_type": "llama",
    "max_position_embeddings": 131072,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}


MIXTURE = LLAMA | {
    "model_type": "qwen3_moe",
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "mlp_only_layers": [0, 1],
}


def resolved(config, options=DEFAULTS, env=None, hardware=NO_GPU, num_shard=1, numeric=False) -> ResolvedArgs:
    facts = ModelFacts() if config is None else facts_of(ConfigDict(config))
    return resolve(options, read_environment(env or {}), hardware, facts, num_shard, numeric_limits=numeric)


def spec(config) -> DecoderSpec:
    found = facts_of(ConfigDict(config)).spec
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("sharded", "num_shard", "env", "expected"),
    [
        (None, None, {}, 1),
        (None, None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        (None, None, {"CUDA_VISIBLE_DEVICES": ""}, 1),
        (None, None, {"NVIDIA_VISIBLE_DEVICES": "all"}, 2),
        (None, None, {"CUDA_VISIBLE_DEVICES": "3", "NVIDIA_VISIBLE_DEVICES": "all"}, 1),
        (None, None, {"ZE_AFFINITY_MASK": "0,1,2"}, 3),
        (None, 3, {"CUDA_VISIBLE_DEVICES": "0,1"}, 3),
        (Switch.FALSE, None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 1),
        (Switch.FALSE, 2, {}, 2),
        (Switch.TRUE, 2, {}, 2),
        (Switch.TRUE, None, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
    ],
)
def test_num_shard(sharded, num_shard, env, expected):
    options = Options(sharded=sharded, num_shard=num_shard)
    assert resolve_num_shard(options, read_environment(env), TWO_GPUS)[0] == expected


@pytest.mark.parametrize(
    ("sharded", "num_shard", "env"),
    [
        (Switch.TRUE, 1, {}),
        (Switch.TRUE, None, {}),
        (Switch.TRUE, None, {"CUDA_VISIBLE_DEVICES": "0"}),
        (None, 0, {}),
    ],
)
def test_num_shard_that_cannot_be(sharded, num_shard, env):
    with pytest.raises(LaunchError, match=r"--sharded|--num-shard"):
        resolve_num_shard(Options(sharded=sharded, num_shard=num_shard), read_environment(env), TWO_GPUS)


def test_all_devices_of_a_host_without_any_is_one_shard():
    assert resolve_num_shard(Options(), read_environment({"NVIDIA_VISIBLE_DEVICES": "all"}), NO_GPU)[0] == 1


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, ("flashinfer", "true")),
        ({"PREFIX_CACHING": "0"}, ("flashinfer", "0")),
        ({"USE_PREFIX_CACHING": "false"}, ("flashinfer", "false")),
        ({"ATTENTION": "paged"}, ("paged", "0")),
        ({"ATTENTION": "flashdecoding"}, ("flashdecoding", "true")),
    ],
)
@pytest.mark.parametrize("config", [None, LLAMA, LLAMA | {"head_dim": 80}, LLAMA | {"model_type": "falcon"}])
def test_attention_and_prefix_caching_are_the_same_for_every_model(config, env, expected):
    args = resolved(config, env=env, hardware=TWO_GPUS)
    assert (args.attention, args.prefix_caching) == expected


@pytest.mark.parametrize(
    ("config", "options", "gpu", "expected"),
    [
        (None, Options(), None, 1024),
        (None, Options(), H100, 4096),
        (None, Options(max_batch_prefill_tokens=77), None, 77),
        (LLAMA, Options(), None, 1024),
        (LLAMA | {"max_position_embeddings": 512}, Options(), None, 512),
        (LLAMA | {"max_position_embeddings": 2048}, Options(), NEW_CARD, 2048),
        ({"model_type": "another", "n_positions": 1024}, Options(), H100, 1024),
        ({"model_type": "with images", "text_config": {"max_position_embeddings": 512}}, Options(), H100, 512),
        (LLAMA | {"model_type": "another"}, Options(), H100, 4096),
        (LLAMA, Options(), NEW_CARD, 4096),
        (LLAMA, Options(), H100, int(900e12 / (32 * (2 * 4096 * 128 * 112 + 6 * 4096 * 14336)))),
    ],
)
def test_prefill_tokens(config, options, gpu, expected):
    args = resolved(config, options, hardware=Hardware((gpu,) if gpu else (), 4))
    assert args.limits.max_batch_prefill_tokens == expected


def test_prefill_tokens_are_bounded_by_memory():
    tight = Gpu("NVIDIA H100", 18 << 30, 9.0)
    tokens = resolved(LLAMA, hardware=Hardware((tight,), 4)).limits.max_batch_prefill_tokens
    optimal = compute_optimal_tokens(spec(LLAMA), H100, 1)
    assert optimal is not None and 0 < tokens < optimal


def test_two_cards_compute_twice_as_much():
    one, two = (compute_optimal_tokens(spec(LLAMA), H100, ranks) for ranks in (1, 2))
    assert one is not None and two is not None and abs(two - 2 * one) <= 1


def test_a_token_passes_some_experts_and_memory_holds_all():
    attention, inner = 4096 * 128 * 112, 2 * 14336 + 30 * 2 * 512
    assert compute_optimal_tokens(spec(MIXTURE), H100, 1) == 900 * 10**12 // (64 * attention + 6 * 4096 * inner)
    weights = 64 * 4096 * 128 * 40 + 3 * 4096 * (2 * 14336 + 30 * 16 * 512) + 2 * 4096 * 128256
    token_bytes = 4 * 8 * 128 * 32 + 9 * 16 * 512
    assert memory_tokens(spec(MIXTURE), 2 * weights + 7 * token_bytes) == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), (4095, 4096, 4145)),
        (Options(max_total_tokens=100), (99, 100, 149)),
        (Options(max_input_length=50), (50, 4096, 100)),
        (Options(max_input_tokens=9000), (9000, 9001, 9050)),
        (Options(max_input_tokens=50, max_batch_size=4), (50, 4096, 200)),
        (Options(max_batch_prefill_tokens=5000), (4095, 4096, 5000)),
    ],
)
def test_limits_of_a_router_that_wants_numbers(options, expected):
    limits = resolved(LLAMA, options, numeric=True).limits
    assert (limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens) == expected


def test_limits_are_left_to_warm_up():
    limits = resolved(LLAMA).limits
    assert (limits.max_input_tokens, limits.max_total_tokens) == (None, None)


@pytest.mark.parametrize(
    "options",
    [
        Options(max_input_tokens=5, max_input_length=5),
        Options(max_input_tokens=5, max_total_tokens=5),
        Options(max_input_length=6, max_total_tokens=5),
    ],
)
def test_limits_that_contradict_each_other(options):
    with pytest.raises(LaunchError, match="--max-input-tokens"):
        check_limits(options)


def test_the_compute_type_names_the_cards():
    assert resolved(LLAMA, hardware=TWO_GPUS, num_shard=2).compute_type == "2-nvidia-h100-80gb-hbm3"
    assert resolved(LLAMA, hardware=TWO_GPUS, env={"COMPUTE_TYPE": "mine"}).compute_type == "mine"
    assert resolved(LLAMA).compute_type is None


def test_every_choice_has_its_reason():
    reasons = " ".join(resolved(LLAMA | {"max_position_embeddings": 512}).reasons)
    assert "prefix caching true" in reasons and "512: max_position_embeddings of config.json" in reasons


def test_a_model_without_attention_has_no_decoder_s_sizes(tmp_path):
    config = {"model_type": "mamba", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_facts(tmp_path) == ModelFacts()


@pytest.mark.parametrize("text", [None, "{no json", "[]", "[" * 100_000, "{}"])
def test_a_config_that_cannot_be_read_tells_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert read_facts(tmp_path) == ModelFacts()


@pytest.mark.parametrize("size", [-1, 0, True, 10**400, "9", [8, 8]])
@pytest.mark.parametrize("key", [key for key in LLAMA if key != "model_type"])
def test_a_size_that_is_none_is_left_to_the_shard(tmp_path, key, size):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {key: size}))
    assert read_facts(tmp_path) == ModelFacts()


def test_a_model_is_read_without_torch(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    code = """
import sys
from pathlib import Path
from text_generation_launcher import cli, command, modelfacts
assert modelfacts.read_facts(Path(sys.argv[1])).spec is not None
print(*sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "loguru", "huggingface_hub"} & set(shown.stdout.split())
