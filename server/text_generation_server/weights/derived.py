"""Tensors of checkpoints that follow from the config: caches and masks that other programs save. Knows no architecture.

By the name of the last part alone, whatever model it is in, since what computes them computes them anew.
"""

import re

_NAMES = re.compile(
    r"inv_freq|\w+_inv_freq|(cos|sin)_cached|freqs_cis"  # of rotary embeddings
    r"|embed_positions|_float_tensor|position_ids"  # of fixed positions
    r"|alibi|slopes"  # of linear biases
    r"|masked_bias|causal_mask|attn_mask|future_mask"
    r"|_extra_state"  # of Transformer Engine: scales of its own eight-bit products
    r"|total_ops|total_params"  # of a profiler
)
_MODULES = re.compile(r"\w*(rotary|rope)\w*\.(?!weight|bias)\w+|embed_positions\.weights|(de|en)coder\.version")
_CAUSAL_MASK = re.compile(r"\w*(attn|attention)\.bias")


def is_derived(name: str, dimensions: int) -> bool:
    """Whether a tensor is none of a model's parameters. A bias of an attention is one unless it is a table."""
    *_, module, last = ["", *name.split(".")]
    if _NAMES.fullmatch(last) or _MODULES.fullmatch(f"{module}.{last}"):
        return True
    return dimensions > 1 and _CAUSAL_MASK.fullmatch(f"{module}.{last}") is not None
