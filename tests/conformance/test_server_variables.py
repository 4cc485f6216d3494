"""Every variable acts, is refused, is a library's, or is named as being without effect (docs/protocol.md#variables)."""

from pathlib import Path

import pytest

from text_generation_server.settings import ServeOptions, server_config

PAGE = Path(__file__).parents[2] / "docs/protocol.md"
OPTIONS = ServeOptions("model")
RANKS = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}

ACTS = {
    "ATTENTION": "flashdecoding", "PREFIX_CACHING": "0", "USE_PREFIX_CACHING": "0", "PREFILL_CHUNKING": "0",
    "CUDA_MEMORY_FRACTION": "0.5", "TGI_WIGGLE_ROOM": "0.5", "MAX_BATCH_SIZE": "4096", "REQUEST_LOGPROBS": "1",
    "ROPE_SCALING": "dynamic", "ROPE_FACTOR": "2.0", "WATERMARK_GAMMA": "0.25", "WATERMARK_DELTA": "1.0",
    "HUGGINGFACE_HUB_CACHE": "/models", "HF_HUB_OFFLINE": "1", "HF_TOKEN": "secret",
    "HUGGING_FACE_HUB_TOKEN": "secret", "WEIGHTS_CACHE_OVERRIDE": "/weights", "OMP_NUM_THREADS": "3",
    "CUDA_GRAPHS": "1,2,4", "LORA_ADAPTERS": "owner/law",
}  # fmt: skip

NAMED = [
    "DEBUG", "FLASH_DECODING", "USE_FLASH_ATTENTION", "XPU_MEMORY_FRACTION", "MAX_TOTAL_TOKENS",
    "HF_HUB_ENABLE_HF_TRANSFER", "SAFETENSORS_FAST_GPU", "DISABLE_CUSTOM_KERNELS", "DISABLE_EXLLAMA",
    "EXLLAMA_VERSION", "ROCM_USE_FLASH_ATTN_V2_TRITON", "ROCM_USE_CUSTOM_PAGED_ATTN", "ROCM_USE_SKINNY_GEMM",
]  # fmt: skip
"""The rest are the libraries' own: HF_HOME, HF_HUB_DISABLE_PROGRESS_BARS, TORCH_*, PYTORCH_TUNABLEOP_*."""


@pytest.mark.parametrize("name", ACTS)
def test_a_variable_acts(name):
    assert server_config(OPTIONS, {name: ACTS[name]}) != server_config(OPTIONS, {})


def test_ranks_act_when_there_are_several():
    sharded = ServeOptions("model", sharded=True)
    assert server_config(sharded, RANKS).ranks != server_config(sharded, RANKS | {"RANK": "1"}).ranks
    assert server_config(OPTIONS, RANKS) == server_config(OPTIONS, {})


@pytest.mark.parametrize("name", NAMED)
def test_a_variable_without_effect_is_named(name):
    assert server_config(OPTIONS, {name: "1"}).without_effect == (name,)


def test_the_page_names_every_variable_that_acts():
    assert [name for name in ACTS | RANKS if f"`{name}`" not in PAGE.read_text()] == []
