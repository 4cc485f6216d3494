"""Which program quantised a checkpoint, by the names of the tensors that it puts beside weights. Knows no config."""

from collections.abc import Collection

_SIGNS = {
    "qweight": ("GPTQ or AWQ", "scales"),
    "biases": ("MLX", "scales"),
    "absmax": ("bitsandbytes", ""),
    "SCB": ("bitsandbytes", ""),
    "weight_packed": ("compressed-tensors", ""),
    "weight_scale": ("a method of FP8, FP4 or INT8 scales", "weight"),
    "weight_scale_inv": ("a method of FP8 scales", "weight"),
    "q_weight": ("EXL2", "q_scale"),
    "trellis": ("EXL3", "suh"),
    "codes": ("AQLM", "codebooks"),
    "Qidxs": ("QuIP#", ""),
    "W_q": ("HQQ", "zero"),
    "_data": ("quanto", "_scale"),
    "gate_up_proj_blocks": ("MXFP4", "gate_up_proj_scales"),
}
"""By the last part of a name: the method, and the last part of another tensor of the same linear, where one alone might
be a parameter of a model."""


TOLD = ("gptq_bits", "gptq_groupsize")
"""Tensors in which the oldest files say themselves how they are quantised."""


def quantiser(names: Collection[str]) -> tuple[str, str] | None:
    """The method, and a tensor that shows it; None where names may be a plain checkpoint's, or it is told."""
    if all(name in names for name in TOLD):
        return None
    for name in names:
        stem, _, last = name.rpartition(".")
        method, beside = _SIGNS.get(last, ("", ""))
        if method and (not beside or f"{stem}.{beside}" in names):
            return method, name
    return None
