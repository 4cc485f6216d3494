"""GGUF files whose linears kept their packing, as `weights/gguf/directory.py` converts them.

Of a linear [out, in] one tensor of bytes [out, bytes of a row], whose name ends in the type of its blocks; types differ
from linear to linear. What blocks hold is in `weights/gguf/blocks.py`; the numbers are read as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.bits import as_range, behind
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.gguf.blocks import BLOCKS, Block
from text_generation_server.weights.layout import Rows


@dataclass(frozen=True, slots=True)
class Gguf:
    """Satisfies `Format`."""

    dense: DenseScheme
    heads: bool = True

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Gguf":
        """By a quantization_config, of which nothing else is read: names say the rest."""
        return cls(dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> "BlockLinear | None":
        """See `Format`."""
        kind = next((kind for kind in BLOCKS if checkpoint.has(f"{name}.{kind}")), None)
        return None if kind is None else BlockLinear(checkpoint, f"{name}.{kind}", shape, BLOCKS[kind], self.dense)


@dataclass(frozen=True, slots=True)
class BlockLinear:
    """Satisfies `Stored`."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    block: Block
    dense: DenseScheme

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`. Only the blocks that the columns are in are looked at."""
        (outputs, inputs), block = self.shape, self.block
        first, last = as_range(columns, inputs)
        first, last = first // block.numbers, -(-last // block.numbers)
        stored = self.checkpoint.view(self.name, (outputs, inputs // block.numbers * block.length), torch.uint8)
        blocks = stored[rows][:, first * block.length : last * block.length].to(self.dense.device)
        count, size = len(blocks), (last - first) * block.numbers
        numbers, scales, minima = block.read(blocks.reshape(-1, block.length))
        columns, groups = behind(columns, first * block.numbers, size), (last - first) * block.parts
        return Coded(
            codes=numbers.reshape(count, size)[:, columns],
            scales=self._narrow(scales.view(count, groups)),
            groups=(torch.arange(size) // (block.numbers // block.parts))[columns],
            dense=self.dense,
            bits=block.bits,
            zero=block.zero,
            table=None if block.table is None else torch.tensor(block.table, device=self.dense.device).float(),
            minima=None if minima is None else self._narrow(minima.view(count, groups)),
        )

    def _narrow(self, values: Tensor) -> Tensor:
        """Half the bytes where weights are rounded anyway: float16 has as many digits as the rows' type, or more."""
        return values if self.dense.dtype is torch.float32 else values.half()
