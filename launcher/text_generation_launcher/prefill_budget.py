"""How many prompt tokens one prefill should take: arithmetic on a model's sizes and a card's speed. Reads nothing.

What is made of the numbers: docs/launcher.md#limits.
"""

from text_generation_launcher.hardware import Gpu
from text_generation_launcher.modelconfig import ModelFacts

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


def compute_optimal_tokens(model: ModelFacts, gpu: Gpu | None, num_shard: int) -> int | None:
    """Prompt tokens that keep the cards busy for a second; None if the card or a size is unknown."""
    flops = _flops_per_token(model)
    speeds = [_TERAFLOPS[token] for token in card_name(gpu).split("-") if token in _TERAFLOPS] if gpu else []
    if not flops or not speeds or model.is_vision:
        return None
    return int(speeds[0] * 1e12 * num_shard / flops)


def memory_tokens(model: ModelFacts, memory_bytes: float) -> int | None:
    """Prompt tokens that fit beside float16 weights; None if a size is unknown or weights are quantized."""
    h, heads, kv_heads, d, layers, inner, vocab = _sizes(model)
    token_bytes = 4 * kv_heads * d * layers + 6 * model.experts * 1.5 * inner
    if model.is_quantized or not (h and layers and inner and vocab and token_bytes):
        return None
    layer_weights = 3 * inner * model.experts * h + (heads + 2 * kv_heads) * d * h + heads * d * h
    weight_bytes = 2 * (layers * layer_weights + 2 * h * vocab)
    return int((memory_bytes - weight_bytes) / token_bytes)


def _flops_per_token(model: ModelFacts) -> int:
    h, heads, kv_heads, d, layers, inner, _ = _sizes(model)
    attention = 2 * h * d * (3 * heads + 2 * kv_heads)
    mlp = 6 * h * inner * (model.experts_per_token + model.shared_experts)
    return layers * (attention + mlp) if attention and mlp else 0


def _sizes(model: ModelFacts) -> tuple[int, int, int, int, int, int, int]:
    return (
        model.hidden_size or 0,
        model.heads or 0,
        model.kv_heads or 0,
        model.head_dim or 0,
        model.num_layers or 0,
        model.intermediate_size or 0,
        model.vocab_size or 0,
    )
