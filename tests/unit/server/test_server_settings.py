"""Options and environment variables of the shard server."""

from pathlib import Path

import pytest

from text_generation_server.choices import RopeScaling
from text_generation_server.errors import InvalidSettings
from text_generation_server.sampling.params import WatermarkParams
from text_generation_server.settings import (
    RankSettings,
    ServeOptions,
    hub_settings,
    server_config,
)

OPTIONS = ServeOptions("model")
SHARDED = ServeOptions("model", sharded=True)
RANK = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_defaults():
    config = server_config(OPTIONS, {})
    assert config.ranks == RankSettings(0, 1, None, None)
    assert (config.cache.attention, config.cache.block_size) == ("flashinfer", 1)
    assert config.cache.prefix_caching and config.cache.chunking
    assert config.cache.memory_fraction == pytest.approx(0.9)
    assert (config.max_rows, config.prefill_logprobs) == (None, False)
    assert (config.rope_scaling, config.rope_factor, config.threads) == (None, None, None)
    assert config.without_effect == ()


def test_ranks_come_from_the_launcher():
    assert server_config(SHARDED, RANK).ranks == RankSettings(1, 2, "localhost", 29500)


def test_without_sharded_there_is_rank_0_only():
    assert server_config(OPTIONS, RANK).ranks == RankSettings()


@pytest.mark.parametrize("name", sorted(RANK))
def test_sharded_needs_every_variable(name):
    with pytest.raises(InvalidSettings, match=rf"{name} is not set; --sharded needs"):
        server_config(SHARDED, {key: value for key, value in RANK.items() if key != name})


def test_a_rank_beyond_the_world_is_refused():
    with pytest.raises(InvalidSettings, match="RANK is 2, expected less than WORLD_SIZE"):
        server_config(SHARDED, RANK | {"RANK": "2"})


@pytest.mark.parametrize(
    ("variables", "attention", "block_size", "prefix_caching"),
    [
        ({"ATTENTION": "flashinfer"}, "flashinfer", 1, True),
        ({"ATTENTION": "paged"}, "paged", 16, False),
        ({"ATTENTION": "flashdecoding"}, "flashdecoding", 256, True),
        ({"ATTENTION": "flashdecoding-ipex", "PREFIX_CACHING": "0"}, "flashdecoding-ipex", 64, False),
        ({"PREFIX_CACHING": "0"}, "paged", 16, False),
        ({"PREFIX_CACHING": "true"}, "flashinfer", 1, True),
        ({"USE_PREFIX_CACHING": "False"}, "paged", 16, False),
        ({"USE_PREFIX_CACHING": "0", "PREFIX_CACHING": "1"}, "flashinfer", 1, True),
        ({"ATTENTION": "", "PREFIX_CACHING": " "}, "flashinfer", 1, True),
    ],
)
def test_attention_is_a_contract_on_blocks(variables, attention, block_size, prefix_caching):
    cache = server_config(OPTIONS, variables).cache
    assert (cache.attention, cache.block_size, cache.prefix_caching) == (attention, block_size, prefix_caching)


def test_the_other_variables():
    config = server_config(
        OPTIONS,
        {
            "PREFILL_CHUNKING": "0",
            "CUDA_MEMORY_FRACTION": "0.5",
            "TGI_WIGGLE_ROOM": "0.8",
            "REQUEST_LOGPROBS": "1",
            "MAX_BATCH_SIZE": "1000",
            "ROPE_SCALING": "dynamic",
            "ROPE_FACTOR": "2.5",
            "OMP_NUM_THREADS": "3",
        },
    )
    assert config.cache.chunking is False
    assert config.cache.memory_fraction == pytest.approx(0.4)
    assert (config.prefill_logprobs, config.max_rows, config.threads) == (True, 1000, 3)
    assert (config.rope_scaling, config.rope_factor) == (RopeScaling.DYNAMIC, 2.5)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"ROPE_SCALING": "linear"}, (RopeScaling.LINEAR, 1.0)), ({"ROPE_FACTOR": "4"}, (RopeScaling.LINEAR, 4.0))],
)
def test_half_of_a_rope_override_implies_the_other(variables, expected):
    config = server_config(OPTIONS, variables)
    assert (config.rope_scaling, config.rope_factor) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATTENTION", "magic"),
        ("PREFIX_CACHING", "maybe"),
        ("PREFILL_CHUNKING", "2"),
        ("CUDA_MEMORY_FRACTION", "1.5"),
        ("CUDA_MEMORY_FRACTION", "0"),
        ("TGI_WIGGLE_ROOM", "nan"),
        ("REQUEST_LOGPROBS", "ja"),
        ("MAX_BATCH_SIZE", "0"),
        ("MAX_BATCH_SIZE", "-1"),
        ("ROPE_SCALING", "yarn"),
        ("ROPE_FACTOR", "two"),
        ("OMP_NUM_THREADS", "many"),
        ("HF_HUB_OFFLINE", "perhaps"),
        ("LORA_ADAPTERS", "law=/adapters/law="),
        ("MAX_DEVICE_LORAS", "-1"),
        ("MAX_LORA_RANK", "0"),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(InvalidSettings, match=name):
        server_config(OPTIONS, {name: value})


def test_host_memory_is_for_more_adapters_than_the_device():
    adapters = server_config(OPTIONS, {"LORA_ADAPTERS": ",".join("abcdefghijkl")}).adapters
    assert (adapters.device_places, adapters.host_places, adapters.asked) == (12, 24, True)
    assert not server_config(OPTIONS, {}).adapters.asked
    with pytest.raises(InvalidSettings, match="--max-cpu-loras is 5, expected at least 6: twice --max-device-loras"):
        server_config(OPTIONS, {"MAX_DEVICE_LORAS": "3", "MAX_CPU_LORAS": "5"})


def test_shared_blocks_and_paged_attention_exclude_each_other():
    with pytest.raises(InvalidSettings, match="PREFIX_CACHING is set with ATTENTION=paged"):
        server_config(OPTIONS, {"ATTENTION": "paged", "PREFIX_CACHING": "1"})


def test_known_variables_without_effect_are_listed():
    variables = {"SAFETENSORS_FAST_GPU": "1", "FLASH_DECODING": "4096", "XPU_MEMORY_FRACTION": "", "PATH": "/bin"}
    assert server_config(OPTIONS, variables).without_effect == ("FLASH_DECODING", "SAFETENSORS_FAST_GPU")


def test_watermarks_have_the_papers_strength_unless_told():
    assert server_config(OPTIONS, {}).watermark == WatermarkParams(gamma=0.5, delta=2.0)
    variables = {"WATERMARK_GAMMA": "0.25", "WATERMARK_DELTA": "4"}
    assert server_config(OPTIONS, variables).watermark == WatermarkParams(gamma=0.25, delta=4.0)
    for name, value in (("WATERMARK_GAMMA", "1.5"), ("WATERMARK_GAMMA", "0"), ("WATERMARK_DELTA", "much")):
        with pytest.raises(InvalidSettings, match=name):
            server_config(OPTIONS, {name: value})


def test_hub_settings():
    hub = hub_settings(
        {
            "HUGGINGFACE_HUB_CACHE": "/hub",
            "HF_HUB_CACHE": "/other",
            "HUGGING_FACE_HUB_TOKEN": "old",
            "HF_TOKEN": "new",
            "HF_HUB_OFFLINE": "1",
            "WEIGHTS_CACHE_OVERRIDE": "/weights",
            "XDG_CACHE_HOME": "/cache",
        }
    )
    assert (hub.cache_dir, hub.token, hub.offline) == (Path("/hub"), "new", True)
    assert hub.weights_cache_override == Path("/weights")
    assert hub.converted_cache == Path("/cache/kvrun/models")


def test_hub_defaults_are_the_librarys():
    hub = hub_settings({"HOME": "/nobody"})
    assert (hub.cache_dir, hub.token, hub.offline, hub.endpoint) == (None, None, False, None)
    assert hub.converted_cache == Path.home() / ".cache" / "kvrun" / "models"
