"""Mistral 7B and Nemo: Llama with a sliding window where `sliding_window` is set. Checked against transformers 5.23."""

from dataclasses import replace

from text_generation_server.models.architectures.llama import llama
from text_generation_server.models.configdict import ConfigDict
from text_generation_server.models.spec import DecoderSpec


def mistral(config: ConfigDict) -> DecoderSpec:
    """The spec of a Mistral."""
    spec = llama(config)
    window = config.optional_integer("sliding_window")
    return replace(spec, attention=replace(spec.attention, windows=(window,) * spec.num_layers))
