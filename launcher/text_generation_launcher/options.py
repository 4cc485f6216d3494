"""The table of options: the router's, and those of launcher and shards, some with why they are refused. Parses nothing.

Every option `--foo-bar` is also the environment variable `FOO_BAR`; the command line wins (docs/launcher.md#options).
"""

from dataclasses import dataclass
from enum import StrEnum

from text_generation_router.options import RouterOptions, option, table
from text_generation_server.choices import Dtype, KvCacheDtype, LoadFormat, Quantize, RopeScaling

EMBEDDED = "embedded"
"""The --router that is ours."""

NO_LORA_IDS = "empty"
"""How kv.run spells that no adapters are wanted."""

OF_ROUTER = tuple(table(RouterOptions))
"""The options that routers have a flag for. What is refused of them is refused by ours, and left to others."""


class Switch(StrEnum):
    """A boolean that is written out, because leaving it away means something third."""

    TRUE = "true"
    FALSE = "false"


_SOCKETS = "/tmp/text-generation-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RouterOptions):
    """The options of one launch: those of its router, and these in the order of TGI's launcher, then ours."""

    model_id: str = option("bigscience/bloom-560m", "Hub id, model directory, .gguf file, or smollm2")
    sharded: Switch | None = option(None, "Cut the model over all visible devices, or never")
    num_shard: int | None = option(None, "Number of ranks the model is cut over", least=0)
    quantize: Quantize | None = option(
        None,
        "What a plain checkpoint's weights are made into; a quantised one says itself what it is; "
        "gguf: a .gguf file's stay packed",
    )
    speculate: int | None = option(None, "Most tokens guessed a step, and verified", least=0)
    dtype: Dtype | None = option(None, "Type of weights and activations")
    kv_cache_dtype: KvCacheDtype = option(
        KvCacheDtype.AUTO, "What keys and values are kept as; auto: as they are computed, or a checkpoint says"
    )
    max_input_length: int | None = option(None, "Old name of --max-input-tokens", least=1)
    cuda_graphs: str | None = option(None, "Batch sizes of recorded decode steps; 0 for none, left out for many")
    shard_uds_path: str = option(_SOCKETS, "Path of the shards' sockets, without the rank")
    master_addr: str = option("localhost", "Where the ranks meet")
    master_port: int = option(29500, "Port there", least=1, most=65535)
    huggingface_hub_cache: str | None = option(None, "Folder of downloaded models")
    weights_cache_override: str | None = option(None, "Folder of this model's weights")
    # Our shards have no second kernels for everything, and name the variable in their log.
    disable_custom_kernels: bool = option(False, "Without effect on our shards, which say so")
    cuda_memory_fraction: float = option(1.0, "Share of device memory to use", least=0, most=1)
    rope_scaling: RopeScaling | None = option(None, "Stretch rotary positions in this way")
    rope_factor: float | None = option(None, "Stretch rotary positions by this factor")
    watermark_gamma: float | None = option(None, "Watermark: share of favoured tokens")
    watermark_delta: float | None = option(None, "Watermark: what favour adds to a logit")
    env: bool = option(False, "Show versions and devices; alone, do nothing else", short="-e")
    lora_adapters: str | None = option(None, "Adapters to load: id, id@revision or name=path, separated by commas")
    enable_prefill_logprobs: bool = option(False, "Serve log-probabilities of prompts")
    lora_ids: str = option(NO_LORA_IDS, "Adapters to load, separated by semicolons")
    lora_dir: str | None = option(None, "Folder of adapters that are loaded when a request names them")
    max_device_loras: int | None = option(None, "Most adapters on a device; 0 for none at all", least=0)
    max_lora_rank: int | None = option(None, "Largest rank of an adapter that there is room for", least=1)
    max_lora_expert_rank: int | None = option(None, "The same of adapters' pairs to experts; 0 for none", least=0)
    max_cpu_loras: int | None = option(None, "Most adapters in host memory", least=1)
    unknown_adapters_as_base: bool = option(
        False, "Serve adapters that are not there, which other routers let through, by the model itself, as TGI does"
    )
    disable_flashinfer: bool = option(False, "Compute attention without FlashInfer")
    load_format: LoadFormat = option(LoadFormat.AUTO, "Form of the weights")
    deterministic: bool = option(False, "The same tokens whatever the batch, on a CPU; slower")
    max_mixed_tokens: int | None = option(None, "Most tokens of a step with prompts beside answers", least=1)
    router: str = option(EMBEDDED, "embedded, or name or path of another text-generation-router")

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt, under either name; None leaves it to warm-up."""
        return self.max_input_length if self.max_input_tokens is None else self.max_input_tokens
