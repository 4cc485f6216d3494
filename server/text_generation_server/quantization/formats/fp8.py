"""Checkpoints of 8-bit floats (e4m3): DeepSeek's and Qwen's, vLLM's and AutoFP8's, and by `modelopt` that one's.

Of a linear [out, in]: weight float8 and weight_scale_inv [out / b, in / b] for blocks of `weight_block_size`; or
weight_scale, one number or one an output. Weights are code · scale, by either name. What is said of activations
(input_scale, activation_scheme) is a way to compute: rows get scales of their own where a device computes in 8 bits.
"""

from dataclasses import dataclass

import torch

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.bytes import ByteLinear
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Fp8:
    """Satisfies `Format`. block: outputs and inputs that share a scale, None for other kinds."""

    block: tuple[int, ...] | None
    dense: DenseScheme
    heads: bool = False

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Fp8":
        """By a quantization_config. Raises UnsupportedModel."""
        written = config.text("fmt", default="e4m3")
        if written != "e4m3":
            raise config.refusal("fmt", written, "e4m3")
        return cls(config.sizes("weight_block_size", 2), dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> ByteLinear | None:
        """See `Format`. Linears without scales are plain."""
        scale = f"{name}.weight_scale_inv" if self.block else f"{name}.weight_scale"
        if checkpoint.has(f"{name}.weight") and not checkpoint.has(scale):
            return None
        checkpoint.leave(f"{name}.input_scale")
        return ByteLinear(checkpoint, name, shape, torch.float8_e4m3fn, scale, self.block, True, self.dense)
