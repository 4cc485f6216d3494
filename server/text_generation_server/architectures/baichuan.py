"""Baichuan and Baichuan 2, 7B and 13B: Llama with one tensor for queries, keys and values.

Source: the files' own modeling_baichuan.py, which transformers has no class for. Traps: only the 7B models have
`max_position_embeddings`; the 13B ones have linear biases instead of rotary positions. Nothing but `z_loss_weight` and
the vocabulary tells Baichuan 2, whose head is normalised.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES, llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import QkvLayout

BAICHUAN_NAMES = replace(LLAMA_NAMES, qkv=("self_attn.W_pack",), qkv_layout=QkvLayout.CONCAT)
BAICHUAN2_VOCAB_SIZE = 125696


def baichuan(config: ConfigDict) -> DecoderSpec:
    """The spec of a Baichuan."""
    spec = llama(config)
    attention = spec.attention
    if spec.max_positions is None:
        attention = replace(attention, rope=None, alibi=AlibiSpec())
    is_second = config.get("z_loss_weight") is not None or spec.vocab_size == BAICHUAN2_VOCAB_SIZE
    return replace(spec, attention=attention, names=BAICHUAN_NAMES, head=replace(spec.head, normalised=is_second))
