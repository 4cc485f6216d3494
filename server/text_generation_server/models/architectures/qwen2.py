"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values. Checked against transformers 5.23.

Traps: no key announces the biases. `sliding_window` counts only with `use_sliding_window`, and then only from layer
`max_window_layers` on.
"""

from dataclasses import replace

from text_generation_server.models.architectures.llama import llama
from text_generation_server.models.configdict import ConfigDict
from text_generation_server.models.spec import DecoderSpec


def qwen2(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen2."""
    spec = llama(config)
    windows: tuple[int | None, ...] = ()
    if config.flag("use_sliding_window", default=False):
        window = config.optional_integer("sliding_window")
        full = config.integer("max_window_layers", default=28)
        windows = tuple(None if layer < full else window for layer in range(spec.num_layers))
    return replace(spec, attention=replace(spec.attention, qkv_bias=True, out_bias=False, windows=windows))
