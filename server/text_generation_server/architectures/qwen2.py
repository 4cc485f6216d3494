"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values. Checked against transformers 5.23.

Traps: no key announces the biases. `sliding_window` counts only with `use_sliding_window`, and then only from layer
`max_window_layers` on, or in those that `layer_types` names.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import layer_windows
from text_generation_server.specs.decoder import DecoderSpec


def qwen2(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen2."""
    spec = llama(config)
    full = config.integer("max_window_layers", default=28, at_least=0)
    slides = [layer >= full for layer in range(spec.num_layers)]
    windows = layer_windows(config, spec.num_layers, used_window(config), slides)
    return replace(spec, attention=replace(spec.attention, qkv_bias=True, out_bias=False, windows=windows))


def used_window(config: ConfigDict) -> int | None:
    """`sliding_window`, where `use_sliding_window` says that it is used."""
    used = config.flag("use_sliding_window", default=False)
    return config.nullable_integer("sliding_window", 4096) if used else None
