"""Mistral 7B and Nemo, Ministral 8B: Llama with a sliding window. Checked against transformers 5.24.

Traps: no `sliding_window` means 4096, `null` means none. transformers reads `layer_types` too, calling such a model
Ministral.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import layer_windows
from text_generation_server.specs.decoder import DecoderSpec


def mistral(config: ConfigDict) -> DecoderSpec:
    """The spec of a Mistral."""
    spec = llama(config)
    windows = layer_windows(config, spec.num_layers, config.nullable_integer("sliding_window", 4096))
    return replace(spec, attention=replace(spec.attention, windows=windows))


def llama_with_window(config: ConfigDict) -> DecoderSpec:
    """The spec of a Llama with the same window in every layer, where there is one."""
    spec = llama(config)
    windows = (config.optional_integer("sliding_window"),) * spec.num_layers
    return replace(spec, attention=replace(spec.attention, windows=windows))
