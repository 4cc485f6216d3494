"""Gemma 1 (2B, 7B): Llama with norms of 1 + weight and scaled embeddings. Checked against transformers 5.23.

Traps: the activation is tanh-GELU whatever old configs say; the head shares the embedding before it is scaled.
"""

import math
from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import DecoderSpec, rms_norm


def gemma(config: ConfigDict) -> DecoderSpec:
    """The spec of a Gemma."""
    config.reject("use_bidirectional_attention", True, "all", "vision")
    spec = llama(config.replaced(hidden_act="gelu_pytorch_tanh"))
    return replace(
        spec,
        norm=rms_norm(spec.norm.eps, offset=1.0),
        mlp=replace(spec.mlp, activation=Activation.GELU_TANH),
        head=config.head(tied_by_default=True),
        embedding_scale=math.sqrt(spec.hidden_size),
    )
