"""The table of options: name, type, default, who uses each, or why it is refused. Parses nothing.

Every option `--foo-bar` is also the environment variable `FOO_BAR`; the command line wins (docs/launcher.md#options).
An option is listed with whoever makes it act. Options of features that do not exist are listed with the sentence that
refuses them.
"""

from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from typing import Annotated


class Use(Flag):
    """Which process an option acts in; ROUTER means that the router has a flag of the same name, which is sent."""

    LAUNCHER = auto()
    DOWNLOAD = auto()
    SHARD = auto()
    ROUTER = auto()
    NOTHING = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of an option beside name, type and default; least and most are inclusive bounds."""

    help: str
    use: Use
    short: str = ""
    least: float | None = None
    most: float | None = None
    refused: str = ""
    refused_embedded: str = ""
    harmless: tuple[object, ...] = ()


def used(use: Use, help: str, *, short: str = "", least: float | None = None, most: float | None = None) -> Option:
    """An option that acts in the processes named."""
    return Option(help=help, use=use, short=short, least=least, most=most)


def elsewhere(why: str, help: str) -> Option:
    """An option that acts in routers of other makers, and whose feature the embedded one does not have."""
    return Option(help=help, use=Use.ROUTER, refused_embedded=why)


def refused(why: str, help: str, *, harmless: tuple[object, ...] = ()) -> Option:
    """An option whose feature does not exist; its default and the harmless values ask for nothing and are accepted."""
    return Option(help=help, use=Use.NOTHING, refused=why, harmless=harmless)


EMBEDDED = "embedded"
"""The --router that is ours."""


class Switch(StrEnum):
    """A boolean that is written out, because leaving it away means something third."""

    TRUE = "true"
    FALSE = "false"


class Dtype(StrEnum):
    """What weights and activations are computed in."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class LoadFormat(StrEnum):
    """Where weights come from; dummy: random numbers, so that a config.json is enough."""

    AUTO = "auto"
    SAFETENSORS = "safetensors"
    DUMMY = "dummy"


class RopeScaling(StrEnum):
    """How rotary positions are stretched beyond the trained length."""

    LINEAR = "linear"
    DYNAMIC = "dynamic"


class UsageStats(StrEnum):
    """What a router of another maker may report to that maker."""

    ON = "on"
    OFF = "off"
    NO_STACK = "no-stack"


_MODEL = Use.DOWNLOAD | Use.SHARD
_ALL = _MODEL | Use.ROUTER
_SHARD_ROUTER = Use.SHARD | Use.ROUTER
_LAUNCHER_ROUTER = Use.LAUNCHER | Use.ROUTER
_PLACE = Use.LAUNCHER | Use.SHARD
_SOCKETS = "/tmp/text-generation-server"
_NO_QUANTIZATION = "quantized weights are not served yet; serve the unquantized checkpoint"
_NO_KV_DTYPE = "keys and values are kept in the model's dtype; a narrower cache does not exist yet"
_NO_LORA = "LoRA adapters are not served yet; merge the adapter into the model"
_NO_NGROK = "tunnels through ngrok are not made; put a reverse proxy in front"
_NO_CHAT = "the embedded router has no chat templates yet, which are what it would be read for"
_NO_COMPLETIONS = "the embedded router has no /v1/completions yet, whose prompts it counts"
_NO_TRACING = "traces are not exported yet; metrics are at /metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one launch, in the order of TGI's launcher, then ours."""

    model_id: Annotated[str, used(_MODEL, "Hub id, model directory, .gguf file, or smollm2")] = "bigscience/bloom-560m"
    revision: Annotated[str | None, used(_MODEL, "Revision on the hub")] = None
    validation_workers: Annotated[int, used(Use.ROUTER, "Tokenizer workers", least=1)] = 2
    sharded: Annotated[Switch | None, used(Use.LAUNCHER, "Cut the model over all visible devices, or never")] = None
    num_shard: Annotated[int | None, used(Use.LAUNCHER, "Number of ranks the model is cut over", least=0)] = None
    quantize: Annotated[str | None, refused(_NO_QUANTIZATION, "Quantization of the weights")] = None
    speculate: Annotated[int | None, used(Use.SHARD, "Most tokens guessed a step, and verified", least=0)] = None
    dtype: Annotated[Dtype | None, used(Use.SHARD, "Type of weights and activations")] = None
    kv_cache_dtype: Annotated[str | None, refused(_NO_KV_DTYPE, "Type of cached keys and values")] = None
    # A permission, which nothing has to make use of.
    trust_remote_code: Annotated[bool, used(_ALL, "Allow a model's own Python code to run")] = False
    max_concurrent_requests: Annotated[int, used(Use.ROUTER, "Requests in work; more are answered 429", least=1)] = 128
    max_best_of: Annotated[int, used(Use.ROUTER, "Largest best_of", least=1)] = 2
    max_stop_sequences: Annotated[int, used(Use.ROUTER, "Most stop sequences of a request", least=0)] = 4
    max_top_n_tokens: Annotated[int, used(Use.ROUTER, "Largest top_n_tokens", least=0)] = 5
    max_input_tokens: Annotated[int | None, used(_SHARD_ROUTER, "Longest prompt in tokens", least=1)] = None
    max_input_length: Annotated[int | None, used(Use.LAUNCHER, "Old name of --max-input-tokens", least=1)] = None
    max_total_tokens: Annotated[int | None, used(_SHARD_ROUTER, "Most prompt and new tokens together", least=2)] = None
    waiting_served_ratio: Annotated[float, used(Use.ROUTER, "Queued over running requests to let in", least=0)] = 0.3
    max_batch_prefill_tokens: Annotated[int | None, used(Use.ROUTER, "Prompt tokens of one prefill", least=1)] = None
    max_batch_total_tokens: Annotated[int | None, used(Use.ROUTER, "Cache in tokens, if not measured", least=1)] = None
    max_waiting_tokens: Annotated[int, used(Use.ROUTER, "Decode steps before waiting requests come in", least=0)] = 20
    max_batch_size: Annotated[int | None, used(_SHARD_ROUTER, "Most requests of a batch", least=1)] = None
    cuda_graphs: Annotated[
        str | None, used(Use.SHARD, "Batch sizes of recorded decode steps; 0 for none, left out for many")
    ] = None
    hostname: Annotated[str, used(_LAUNCHER_ROUTER, "IP address to listen on")] = "0.0.0.0"
    port: Annotated[int, used(_LAUNCHER_ROUTER, "HTTP port", short="-p", least=1, most=65535)] = 3000
    prometheus_port: Annotated[int, used(Use.ROUTER, "Port of metrics; 0 for none", least=0, most=65535)] = 9000
    shard_uds_path: Annotated[str, used(_PLACE, "Path of the shards' sockets, without the rank")] = _SOCKETS
    master_addr: Annotated[str, used(Use.SHARD, "Where the ranks meet")] = "localhost"
    master_port: Annotated[int, used(_PLACE, "Port there", least=1, most=65535)] = 29500
    huggingface_hub_cache: Annotated[str | None, used(_MODEL, "Folder of downloaded models")] = None
    weights_cache_override: Annotated[str | None, used(_MODEL, "Folder of this model's weights")] = None
    # Our shards have no second kernels for everything, and name the variable in their log.
    disable_custom_kernels: Annotated[bool, used(Use.SHARD, "Without effect on our shards, which say so")] = False
    cuda_memory_fraction: Annotated[float, used(Use.SHARD, "Share of device memory to use", least=0, most=1)] = 1.0
    rope_scaling: Annotated[RopeScaling | None, used(Use.SHARD, "Stretch rotary positions in this way")] = None
    rope_factor: Annotated[float | None, used(Use.SHARD, "Stretch rotary positions by this factor")] = None
    json_output: Annotated[bool, used(_LAUNCHER_ROUTER, "Log JSON, an object a line")] = False
    otlp_endpoint: Annotated[str | None, refused(_NO_TRACING, "Collector of traces")] = None
    otlp_service_name: Annotated[str, refused(_NO_TRACING, "Name in traces")] = "text-generation-inference.router"
    cors_allow_origin: Annotated[list[str] | None, used(Use.ROUTER, "Origin browsers may call from; repeatable")] = None
    api_key: Annotated[str | None, used(Use.ROUTER, "Key that requests must bear")] = None
    watermark_gamma: Annotated[float | None, used(Use.SHARD, "Watermark: share of favoured tokens")] = None
    watermark_delta: Annotated[float | None, used(Use.SHARD, "Watermark: what favour adds to a logit")] = None
    ngrok: Annotated[bool, refused(_NO_NGROK, "Open an ngrok tunnel")] = False
    ngrok_authtoken: Annotated[str | None, refused(_NO_NGROK, "ngrok's token")] = None
    ngrok_edge: Annotated[str | None, refused(_NO_NGROK, "ngrok's edge")] = None
    tokenizer_config_path: Annotated[str | None, elsewhere(_NO_CHAT, "Use this tokenizer_config.json")] = None
    disable_grammar_support: Annotated[bool, used(Use.ROUTER, "Refuse requests with a grammar")] = False
    env: Annotated[bool, used(Use.LAUNCHER, "Show versions and devices; alone, do nothing else", short="-e")] = False
    max_client_batch_size: Annotated[int, elsewhere(_NO_COMPLETIONS, "Most prompts of one request")] = 4
    lora_adapters: Annotated[str | None, refused(_NO_LORA, "Adapters to load, separated by commas")] = None
    # We report nothing to anyone; a router of another maker is told `off` unless this is given.
    usage_stats: Annotated[UsageStats, used(Use.LAUNCHER, "What a router of another maker may report")] = UsageStats.ON
    payload_limit: Annotated[int, used(Use.ROUTER, "Largest request body in bytes", least=1)] = 2_000_000
    enable_prefill_logprobs: Annotated[bool, used(Use.SHARD, "Serve log-probabilities of prompts")] = False
    graceful_termination_timeout: Annotated[
        int, used(Use.LAUNCHER, "Seconds that running requests get at the end", short="-g", least=0)
    ] = 90
    lora_ids: Annotated[str, refused(_NO_LORA, "Adapters to load, separated by semicolons")] = "empty"
    disable_flashinfer: Annotated[bool, used(Use.SHARD, "Compute attention without FlashInfer")] = False
    load_format: Annotated[LoadFormat, used(_MODEL, "Form of the weights")] = LoadFormat.AUTO
    deterministic: Annotated[bool, used(Use.SHARD, "The same tokens whatever the batch, on a CPU; slower")] = False
    router: Annotated[str, used(Use.LAUNCHER, "embedded, or name or path of another text-generation-router")] = EMBEDDED

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt, under either name; None leaves it to warm-up."""
        return self.max_input_length if self.max_input_tokens is None else self.max_input_tokens


def flag(name: str) -> str:
    """The command-line spelling of an option."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment spelling of an option."""
    return name.upper()
