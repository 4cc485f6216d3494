"""Linears whose tensor `weight` has a byte a number, beside their scales. Knows no format's names but that one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows


@dataclass(frozen=True, slots=True)
class ByteLinear:
    """Satisfies `Stored`. dtype: of the bytes. scale: the name of the tensor of scales.

    block: outputs and inputs that share one, None where that is all of them, or an output's. rounds: see `Coded`.
    """

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    scale: str
    block: tuple[int, ...] | None
    rounds: bool
    dense: DenseScheme

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        stored = self.checkpoint.view(f"{self.name}.weight", self.shape, self.dtype).view(torch.uint8)
        codes = stored[rows][:, columns].to(self.dense.device).view(self.dtype)
        size = self.block[1] if self.block else self.shape[1]
        groups = torch.arange(self.shape[1]) // size
        scales = self._scales()[rows].to(self.dense.device)
        return Coded(codes, scales, groups[columns], self.dense, bits=8, rounds=self.rounds)

    def _scales(self) -> Tensor:
        """[out, groups]"""
        outputs, inputs = self.shape
        if self.block is None:
            found = self.checkpoint.view(self.scale, (outputs, 1), others=((outputs,), (1,), ()))
            return found.reshape(-1, 1).expand(outputs, 1)
        high, wide = self.block
        found = self.checkpoint.view(self.scale, (-(-outputs // high), -(-inputs // wide)))
        return found[torch.arange(outputs) // high]
