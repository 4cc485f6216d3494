"""The environments that children start in (docs/launcher.md#children). Reads none itself: everything is handed in."""

from text_generation_launcher.context import LaunchContext
from text_generation_launcher.embedded_python import EmbeddedPython
from text_generation_launcher.options import OF_ROUTER, Options
from text_generation_launcher.resolve import ResolvedArgs
from text_generation_router.options import variable

_LARGE_PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.top_pad=67108864"
"""Let what a CPU's shard allocates lie together in pages of 2 MiB: the kernel clears the first of each 4 KiB otherwise,
which was a quarter of the processor time of loading (docs/benchmarks.md#loading-on-a-cpu)."""


def download_environment(launch: LaunchContext) -> dict[str, str]:
    """Ours without LOG_LEVEL, and where the hub's files go."""
    options = launch.options
    env = {name: value for name, value in launch.environment.variables.items() if name != "LOG_LEVEL"}
    env["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return env | _hub(launch) | _given(WEIGHTS_CACHE_OVERRIDE=options.weights_cache_override)


def shard_environment(launch: LaunchContext, resolved: ResolvedArgs, rank: int, master_port: int) -> dict[str, str]:
    """What a download gets, and this rank's place in the group, which meets at `master_port`."""
    options, world = launch.options, resolved.num_shard
    # NVLink multicast fails on hosts that give a container some of their GPUs only; who has all can ask for it.
    defaults = {"NCCL_NVLS_ENABLE": "0"} | ({} if launch.hardware.gpus else {"GLIBC_TUNABLES": _LARGE_PAGES})
    inherited = defaults | download_environment(launch)
    env = inherited | {
        "ATTENTION": resolved.attention,
        "PREFIX_CACHING": resolved.prefix_caching,
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": options.master_addr,
        "MASTER_PORT": str(master_port),
        "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
        "CUDA_MEMORY_FRACTION": format(options.cuda_memory_fraction, "g"),
        "SAFETENSORS_FAST_GPU": "1",
    }
    return env | _rope(options) | _shard_options(options, resolved)


def router_environment(launch: LaunchContext, resolved: ResolvedArgs, python: EmbeddedPython | None) -> dict[str, str]:
    """Ours, what the shards were told of caching, and the key, which a command line would show to everyone.

    No other variable that repeats a flag: the flags say it all. `python`: inside the router, if it is another's.
    """
    flags = {variable(name) for name in OF_ROUTER}
    env = {name: value for name, value in launch.environment.variables.items() if name not in flags}
    env |= {
        "ATTENTION": resolved.attention,
        "PREFIX_CACHING": resolved.prefix_caching,
        "USE_PREFIX_CACHING": resolved.prefix_caching,
    }
    if launch.embedded_router:
        env["AWAIT_SHARDS"] = "true"  # it starts when they do
    if python is not None:
        env |= _given(PYTHONPATH=python.path(env.get("PYTHONPATH")))
    return env | _hub(launch) | _given(COMPUTE_TYPE=resolved.compute_type, API_KEY=launch.options.api_key)


def _hub(launch: LaunchContext) -> dict[str, str]:
    token = launch.environment.hub_token
    return _given(
        HUGGINGFACE_HUB_CACHE=launch.options.huggingface_hub_cache, HF_TOKEN=token, HUGGING_FACE_HUB_TOKEN=token
    )


def _rope(options: Options) -> dict[str, str]:
    if options.rope_scaling is None and options.rope_factor is None:
        return {}
    factor = 1.0 if options.rope_factor is None else options.rope_factor
    return {"ROPE_SCALING": options.rope_scaling or "linear", "ROPE_FACTOR": format(factor, "g")}


def _shard_options(options: Options, resolved: ResolvedArgs) -> dict[str, str]:
    return _given(
        MAX_TOTAL_TOKENS=resolved.limits.max_total_tokens,
        MAX_BATCH_SIZE=options.max_batch_size,
        CUDA_GRAPHS=options.cuda_graphs,
        WATERMARK_GAMMA=options.watermark_gamma,
        WATERMARK_DELTA=options.watermark_delta,
        LORA_ADAPTERS=options.lora_adapters,
        LORA_DIR=options.lora_dir,
        MAX_DEVICE_LORAS=options.max_device_loras,
        MAX_LORA_RANK=options.max_lora_rank,
        MAX_LORA_EXPERT_RANK=options.max_lora_expert_rank,
        MAX_CPU_LORAS=options.max_cpu_loras,
        UNKNOWN_ADAPTERS_AS_BASE="true" if options.unknown_adapters_as_base else None,
        REQUEST_LOGPROBS="1" if options.enable_prefill_logprobs else None,
        DISABLE_CUSTOM_KERNELS="True" if options.disable_custom_kernels else None,
    )


def _given(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
