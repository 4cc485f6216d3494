"""Which program quantised a checkpoint, by the names of the tensors that it puts beside weights. Knows no config."""

import re
from collections.abc import Iterable

_SIGNS = {
    r"qweight|qzeros|g_idx": "GPTQ or AWQ",
    r"biases": "MLX",
    r"absmax|nested_absmax|quant_map|SCB|bitsandbytes__\w+": "bitsandbytes",
    r"weight_packed|weight_shape|weight_zero_point": "compressed-tensors",
    r"weight_scale|weight_scale_inv|weight_scale_2|input_scale": "a method of FP8, FP4 or INT8 scales",
    r"q_weight|q_scale|q_perm": "EXL2",
    r"trellis|suh|svh": "EXL3",
    r"codebooks|codes": "AQLM",
    r"Qidxs": "QuIP#",
    r"W_q": "HQQ",
    r"_data|_scale": "quanto",
    r"\w+_proj_blocks|blocks": "MXFP4",
}


def quantiser(names: Iterable[str]) -> tuple[str, str] | None:
    """The method, and a tensor that shows it; None where all names may be those of a plain checkpoint."""
    for name in names:
        last = name.rpartition(".")[2]
        method = next((method for sign, method in _SIGNS.items() if re.fullmatch(sign, last)), None)
        if method is not None:
            return method, name
    return None
