"""ModelOpt's checkpoints, by `quant_algo`: FP8, a byte a weight with a scale a tensor, and NVFP4.

Of a linear [out, in] in NVFP4 (`quantization/fp4.py`): weight uint8 [out, in / 2], weight_scale e4m3 [out, in / 16],
weight_scale_2, a number that scales are multiplied by. Activations (input_scale) are not rounded.
"""

from dataclasses import dataclass

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.fp8 import Fp8
from text_generation_server.quantization.fp4 import NV_SIZE, Fp4Linear, number, nv_linear
from text_generation_server.quantization.scheme import Format
from text_generation_server.weights.checkpoint import Checkpoint


def modelopt(config: ConfigDict, dense: DenseScheme) -> Format:
    """By ModelOpt's section; without an algorithm weights are plain, beside a narrow cache. Raises UnsupportedModel."""
    algorithm = config.text("quant_algo", default="FP8")
    if algorithm == "FP8":
        return Fp8(None, dense)
    if algorithm != "NVFP4":
        raise config.refusal("quant_algo", algorithm, "FP8 or NVFP4")
    if config.integer("group_size", default=NV_SIZE) != NV_SIZE:
        raise config.refusal("group_size", config.get("group_size"), str(NV_SIZE))
    return Nvfp4(dense)


@dataclass(frozen=True, slots=True)
class Nvfp4:
    """Satisfies `Format`."""

    dense: DenseScheme
    heads: bool = True

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> Fp4Linear | None:
        """See `Format`. Linears without scales are plain."""
        if checkpoint.has(f"{name}.weight") and not checkpoint.has(f"{name}.weight_scale"):
            return None
        checkpoint.leave(f"{name}.input_scale")
        factor = number(checkpoint, f"{name}.weight_scale_2")
        return nv_linear(checkpoint, f"{name}.weight", f"{name}.weight_scale", shape, self.dense, factor)
