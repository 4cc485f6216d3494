"""How many prompt tokens one prefill should take: arithmetic on a model's sizes and a card's speed. Reads nothing.

The formulas are those of docs/launcher.md#limits, with the sizes of each layer where layers differ.
"""

from text_generation_launcher.hardware import Gpu
from text_generation_server.specs.decoder import DecoderSpec

# Dense float16 speed by the token of the driver's name that tells the card, in 10^12 operations a second.
_TERAFLOPS = {
    "4090": 82,
    "t4": 65,
    "l4": 121,
    "l40": 181,
    "l40s": 363,
    "a10g": 125,
    "a40": 149,
    "a100": 312,
    "h100": 900,
    "h200": 989,
}


def card_name(gpu: Gpu) -> str:
    """The card as it is written in COMPUTE_TYPE: lower case, dashes for spaces."""
    return gpu.name.strip().lower().replace(" ", "-")


def compute_optimal_tokens(spec: DecoderSpec, gpu: Gpu, num_shard: int) -> int | None:
    """Prompt tokens that keep the cards busy for a second; None if the card is unknown."""
    speeds = [_TERAFLOPS[token] for token in card_name(gpu).split("-") if token in _TERAFLOPS]
    return speeds[0] * 10**12 * num_shard // _flops_per_token(spec) if speeds else None


def memory_tokens(spec: DecoderSpec, memory_bytes: int) -> int:
    """Prompt tokens that fit beside float16 weights; not above 0 if the weights alone do not fit."""
    return (memory_bytes - _weight_bytes(spec)) // _token_bytes(spec)


def _flops_per_token(spec: DecoderSpec) -> int:
    own, experts = spec.attention, spec.moe.top_k if spec.moe else 0
    attention = 2 * spec.hidden_size * own.head_dim * (3 * own.heads + 2 * own.kv_heads)
    return spec.num_layers * attention + 2 * _matrices(spec) * spec.hidden_size * _inner_size(spec, experts)


def _weight_bytes(spec: DecoderSpec) -> int:
    own, experts = spec.attention, spec.moe.experts if spec.moe else 0
    attention = 2 * spec.hidden_size * own.head_dim * (own.heads + own.kv_heads)
    mlps = _matrices(spec) * spec.hidden_size * _inner_size(spec, experts)
    return 2 * (spec.num_layers * attention + mlps + 2 * spec.hidden_size * spec.vocab_size)


def _token_bytes(spec: DecoderSpec) -> int:
    """Keys and values of every layer, and what the widest one computes on the way."""
    moe = spec.moe
    widest = moe.experts * moe.inner_size + moe.shared_size if moe else spec.mlp.inner_size
    return 4 * spec.attention.kv_heads * spec.attention.head_dim * spec.num_layers + 9 * widest


def _matrices(spec: DecoderSpec) -> int:
    """Of an MLP or of one expert, each as large as hidden · inner size."""
    return 3 if spec.moe or spec.mlp.gated else 2


def _inner_size(spec: DecoderSpec, experts: int) -> int:
    """Inner sizes of all layers together, counting so many experts where there are some."""
    moe = spec.moe
    if moe is None:
        return spec.num_layers * spec.mlp.inner_size
    dense = len(moe.dense_layers)
    sparse = spec.num_layers - dense
    return dense * spec.mlp.inner_size + sparse * (experts * moe.inner_size + moe.shared_size)
