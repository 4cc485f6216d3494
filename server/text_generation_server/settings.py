"""Options and environment variables to one frozen configuration. No other module asks the environment.

Which variables there are and what they mean: docs/protocol.md#variables.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from text_generation_server.adapters.sources import NONE_WANTED, AdapterSettings, adapter_sources
from text_generation_server.choices import Dtype, KvCacheDtype, LoadFormat, Quantize, RopeScaling
from text_generation_server.environment import Environment
from text_generation_server.errors import InvalidSettings
from text_generation_server.sampling.params import WatermarkParams
from text_generation_server.weights.remote import HubSettings

BLOCK_SIZES = {"flashinfer": 1, "paged": 16, "flashdecoding": 256, "flashdecoding-ipex": 64}
"""Slots in a block of a router's allocator, by the value of ATTENTION: a contract on numbers, not on kernels."""

SERVICE_NAME = "text-generation-inference.server"
"""What shards are called in traces."""

MAX_ROWS = 512
"""Most sequences served at once, where memory allows so many and MAX_BATCH_SIZE does not say."""

WIGGLE_ROOM = 0.9
"""Part of the memory that is planned with; the rest is for what cannot be measured."""

WITHOUT_EFFECT = (
    "DEBUG",
    "DISABLE_CUSTOM_KERNELS",
    "DISABLE_EXLLAMA",
    "EXLLAMA_VERSION",
    "FLASH_DECODING",
    "HF_HUB_ENABLE_HF_TRANSFER",
    "MAX_TOTAL_TOKENS",
    "ROCM_USE_CUSTOM_PAGED_ATTN",
    "ROCM_USE_FLASH_ATTN_V2_TRITON",
    "ROCM_USE_SKINNY_GEMM",
    "SAFETENSORS_FAST_GPU",
    "USE_FLASH_ATTENTION",
    "XPU_MEMORY_FRACTION",
)
"""Variables that other servers of this protocol act on and this one does not."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `serve`, as given.

    use_flashinfer: None to decide by machine and model.
    lora_ids: adapters, as kv.run's launchers list them.
    quantize, kv_cache_dtype: see `ModelOptions`.
    deterministic: the same tokens whatever else is computed at the time, to the bit.
    max_mixed_tokens: of a step with prompts beside answers; None for what suits the device.
    """

    model_id: str
    revision: str | None = None
    sharded: bool = False
    dtype: Dtype | None = None
    trust_remote_code: bool = False
    uds_path: Path = Path("/tmp/text-generation-server")
    run_ahead: bool = True
    speculate: int = 0
    use_flashinfer: bool | None = None
    load_format: LoadFormat = LoadFormat.AUTO
    deterministic: bool = False
    lora_ids: str = NONE_WANTED
    max_mixed_tokens: int | None = None
    otlp_endpoint: str | None = None
    otlp_service_name: str = SERVICE_NAME
    quantize: Quantize | None = None
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.AUTO


@dataclass(frozen=True, slots=True)
class RankSettings:
    """This process's place among the shards; the address is where they meet, None for one alone."""

    rank: int = 0
    world_size: int = 1
    master_addr: str | None = None
    master_port: int | None = None


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What routers are told of the cache, and how much memory it may take.

    attention: the name that stands for a block size. block_size: slots of a block.
    memory_fraction: of the device's memory, for weights, cache and work space together.
    """

    attention: str
    block_size: int
    prefix_caching: bool
    chunking: bool
    memory_fraction: float


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """All that `serve` was asked for; parts of it are handed on.

    threads: for computing on a CPU, None to divide the processors among the ranks.
    kernel_choices: file in which the fastest matrix kernels of each GPU are remembered.
    max_rows: sequences served at once, None for as many as memory allows up to `MAX_ROWS`.
    graphs: numbers of rows for which decode steps are recorded on a GPU, None for the usual ones.
    without_effect: variables that are set and do nothing here.
    """

    options: ServeOptions
    ranks: RankSettings
    cache: CacheSettings
    hub: HubSettings
    max_rows: int | None
    prefill_logprobs: bool
    rope_scaling: RopeScaling | None
    rope_factor: float | None
    watermark: WatermarkParams
    threads: int | None
    graphs: tuple[int, ...] | None
    kernel_choices: Path
    without_effect: tuple[str, ...]
    adapters: AdapterSettings


def server_config(options: ServeOptions, variables: Mapping[str, str] = os.environ) -> ServerConfig:
    """Raises InvalidSettings, naming the variable that cannot be used."""
    env = Environment(variables)
    scaling, factor = _rope(env)
    return ServerConfig(
        options=options,
        ranks=_ranks(env) if options.sharded else RankSettings(),
        cache=_cache(env),
        hub=hub_settings(variables),
        max_rows=env.integer("MAX_BATCH_SIZE", at_least=1),
        prefill_logprobs=env.flag("REQUEST_LOGPROBS", False),
        rope_scaling=scaling,
        rope_factor=factor,
        watermark=_watermark(env),
        threads=env.integer("OMP_NUM_THREADS", at_least=1),
        graphs=_graphs(env),
        kernel_choices=_user_cache(env) / "kernels.json",
        without_effect=tuple(name for name in WITHOUT_EFFECT if name in env),
        adapters=_adapters(env, options.lora_ids),
    )


def hub_settings(variables: Mapping[str, str] = os.environ) -> HubSettings:
    """Where models are looked for. Raises InvalidSettings."""
    env = Environment(variables)
    return HubSettings(
        converted_cache=_user_cache(env) / "models",
        cache_dir=env.path("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"),
        token=env.text("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        offline=env.flag("HF_HUB_OFFLINE", False),
        weights_cache_override=env.path("WEIGHTS_CACHE_OVERRIDE"),
        endpoint=env.text("HF_ENDPOINT"),
    )


def _adapters(env: Environment, lora_ids: str) -> AdapterSettings:
    settings = AdapterSettings(
        named=adapter_sources(env.text("LORA_ADAPTERS") or "", lora_ids),
        directory=env.path("LORA_DIR"),
        places=env.integer("MAX_DEVICE_LORAS", at_least=0),
        rank=env.integer("MAX_LORA_RANK", at_least=1),
        expert_rank=env.integer("MAX_LORA_EXPERT_RANK", at_least=0),
        kept=env.integer("MAX_CPU_LORAS", at_least=1),
        unknown_is_base=env.flag("UNKNOWN_ADAPTERS_AS_BASE", False),
    )
    settings.check()
    return settings


def _user_cache(env: Environment) -> Path:
    return (env.path("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvrun"


def _ranks(env: Environment) -> RankSettings:
    why = "--sharded needs RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as the launcher sets them"
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        env.required(name, why)
    rank, world_size = env.integer("RANK", at_least=0) or 0, env.integer("WORLD_SIZE", at_least=1) or 1
    if rank >= world_size:
        raise InvalidSettings(f"RANK is {rank}, expected less than WORLD_SIZE, which is {world_size}")
    return RankSettings(rank, world_size, env.required("MASTER_ADDR", why), env.integer("MASTER_PORT", at_least=1))


def _cache(env: Environment) -> CacheSettings:
    """Where only one is set, it implies the other; version 2.3 calls PREFIX_CACHING USE_PREFIX_CACHING."""
    attention = env.choice("ATTENTION", tuple(BLOCK_SIZES))
    name = "PREFIX_CACHING" if "PREFIX_CACHING" in env else "USE_PREFIX_CACHING"
    prefix_caching = env.flag(name, attention != "paged")
    if prefix_caching and attention == "paged":
        raise InvalidSettings(f"{name} is set with ATTENTION=paged, whose blocks are not shared; unset one of them")
    attention = attention or ("flashinfer" if prefix_caching else "paged")
    fraction = env.number("CUDA_MEMORY_FRACTION", above=0, up_to=1) or 1.0
    return CacheSettings(
        attention=attention,
        block_size=BLOCK_SIZES[attention],
        prefix_caching=prefix_caching,
        chunking=env.flag("PREFILL_CHUNKING", True),
        memory_fraction=fraction * (env.number("TGI_WIGGLE_ROOM", above=0, up_to=1) or WIGGLE_ROOM),
    )


def _graphs(env: Environment) -> tuple[int, ...] | None:
    """A list of sizes; 0 stands for none."""
    text = env.text("CUDA_GRAPHS")
    if text is None:
        return None
    sizes = text.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise InvalidSettings(f"CUDA_GRAPHS is {text!r}, expected numbers of rows such as 1,2,4,8, or 0 for none")
    return tuple(sorted({int(size) for size in sizes} - {0}))


def _watermark(env: Environment) -> WatermarkParams:
    usual = WatermarkParams()
    return WatermarkParams(
        gamma=env.number("WATERMARK_GAMMA", above=0, up_to=1) or usual.gamma,
        delta=env.number("WATERMARK_DELTA", above=0) or usual.delta,
    )


def _rope(env: Environment) -> tuple[RopeScaling | None, float | None]:
    """Either variable alone means the other's default: linear, 1."""
    kind = env.choice("ROPE_SCALING", tuple(RopeScaling))
    factor = env.number("ROPE_FACTOR", above=0)
    if kind is None and factor is None:
        return None, None
    return RopeScaling(kind or RopeScaling.LINEAR), factor or 1.0
