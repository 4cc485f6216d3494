"""StarCoder, SantaCoder's converted files, Granite Code 20B and 34B: GPT-2 with one key/value head.

Checked against transformers 5.23. Traps: linears are stored [out, in], unlike GPT-2's. Without `multi_query` queries,
keys and values lie head by head.
"""

from dataclasses import replace

from text_generation_server.architectures.gpt2 import GPT2_NAMES, gpt2
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import QkvLayout


def gpt_bigcode(config: ConfigDict) -> DecoderSpec:
    """The spec of a GPT-BigCode."""
    spec, multi_query = gpt2(config), config.flag("multi_query", default=True)
    layout = QkvLayout.CONCAT if multi_query else QkvLayout.GROUPED
    return replace(
        spec,
        attention=replace(spec.attention, kv_heads=1 if multi_query else spec.attention.heads),
        names=replace(GPT2_NAMES, qkv_layout=layout, conv1d=False),
    )
