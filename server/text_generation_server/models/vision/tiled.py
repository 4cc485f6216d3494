"""A vision transformer whose tokens see those of all tiles of their image. Knows neither specs nor checkpoints.

There is room for as many tiles as any image may have, and for so many tokens a tile that they are a multiple of eight:
what fills that up is seen by the image's own tokens too, as in training, but not by what else fills it up. So the
image's own tokens come first here, all others behind them.

Dimensions: n tokens of a tile with its class token, N of all tiles and what fills them up, H heads of the rank, d
head_dim. The hidden state travels as a pair, as in `models/decoder.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from text_generation_server.device.copies import to_device
from text_generation_server.images.types import PreparedImage
from text_generation_server.layers.linear import ColumnParallelLinear, LinearKernel, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.models.decoder import DenseMlp, HiddenState
from text_generation_server.models.step import ImageInput
from text_generation_server.models.vision.tower import KERNELS, TOKENS

MULTIPLE = 8
"""Of tokens of a tile, in training."""


@dataclass(frozen=True, slots=True)
class TiledBlock:
    """x += g1 · attention(n1(x)); x += g2 · mlp(n2(x)). gates: g1, g2, [1] each; None where both are 1."""

    norm1: Norm
    qkv: ColumnParallelLinear
    out: RowParallelLinear
    norm2: Norm
    mlp: DenseMlp
    head_dim: int
    gates: tuple[Tensor, Tensor] | None

    def __call__(self, delta: Tensor, residual: Tensor, real: int) -> HiddenState:
        """[N, hidden] each, the first `real` of which are the image's own, to the same shapes."""
        delta = self._attend(self.norm1.of_sum(delta, residual), real)
        if self.gates is not None:
            delta = delta.mul_(self.gates[0])
        made = self.mlp(self.norm2.of_sum(delta, residual), TOKENS)
        return made if self.gates is None else made.mul_(self.gates[1]), residual

    def _attend(self, x: Tensor, real: int) -> Tensor:
        q, k, v = self.qkv(x, TOKENS).view(len(x), 3, -1, self.head_dim).permute(1, 2, 0, 3)[:, None]  # [1, H, N, d]
        with sdpa_kernel(KERNELS):
            own = F.scaled_dot_product_attention(q[:, :, :real], k, v)
            others = F.scaled_dot_product_attention(q[:, :, real:], k[:, :, :real], v[:, :, :real])
        return self.out(torch.cat((own, others), 2)[0].transpose(0, 1).reshape(len(x), -1), TOKENS)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is learned for images of one grid of tiles. before, after: [tiles, hidden], for tokens of each tile.

    places: [tiles, n, hidden], for each token.
    """

    before: Tensor
    places: Tensor
    after: Tensor


@dataclass(frozen=True, slots=True)
class TiledTower:
    """shapes: by (rows, columns) of tiles. class_token: [1, hidden].

    taken: blocks, from 0, whose inputs are features beside the last output.
    """

    patch_size: int
    patches: LinearKernel
    class_token: Tensor
    shapes: Mapping[tuple[int, ...], Shape]
    before: Norm
    blocks: Sequence[TiledBlock]
    after: Norm
    global_blocks: Sequence[TiledBlock]
    taken: Sequence[int]

    def __call__(self, pixels: Tensor, grid: tuple[int, ...]) -> Tensor:
        """[tiles, channels, height, width] of one image to features [tiles, n, width]."""
        shape, tiles = self.shapes[grid], len(pixels)
        x = self.before(self._embedded(pixels, shape))
        most, count, _ = x.shape
        spare = most * (-count % MULTIPLE)
        real = tiles * count
        tile_of = torch.arange(most, device=x.device)
        tile_of = torch.cat((tile_of.repeat_interleave(count), tile_of.repeat_interleave(spare // most)))
        x = F.pad(x.flatten(0, 1), (0, 0, 0, spare))
        x, inputs = _run(self.blocks, x, real, self.taken)
        last, _ = _run(self.global_blocks, self.after(x) + shape.after[tile_of], real)
        return torch.cat((last[:real], torch.stack(inputs, -1).flatten(1)), 1).view(tiles, count, -1)

    def _embedded(self, pixels: Tensor, shape: Shape) -> Tensor:
        """[tiles, channels, height, width] to [most tiles, n, hidden]; tiles that an image does not have are black."""
        most, size = len(shape.before), self.patch_size
        pixels = F.pad(pixels, (0, 0) * 3 + (0, most - len(pixels)))
        _, channels, height, width = pixels.shape
        patches = pixels.view(most, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
        x = self.patches(patches.reshape(-1, channels * size * size)).view(most, -1, self.class_token.shape[1])
        x = x + shape.before[:, None]
        return torch.cat((self.class_token.expand(most, 1, -1), x), 1) + shape.places


def _run(blocks: Sequence[TiledBlock], x: Tensor, real: int, taken: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
    """What comes out of some blocks, and of the image's own tokens what goes into those that are `taken`."""
    inputs = {}
    delta, residual = x, torch.zeros_like(x)
    for number, block in enumerate(blocks):
        if number in taken:
            inputs[number] = residual[:real] + delta[:real]
        delta, residual = block(delta, residual, real)
    return residual + delta, [inputs[number] for number in taken]


@dataclass(frozen=True, slots=True)
class TiledReader:
    """Reads images by themselves. projector: of each token's features. device, dtype: of what is read."""

    tower: TiledTower
    projector: LinearKernel
    device: torch.device
    dtype: torch.dtype

    def features_of(self, images: Sequence[ImageInput]) -> Iterator[tuple[ImageInput, Tensor]]:
        """Each image with its features [kept, hidden]: the tokens of one are enough to fill a GPU."""
        return ((image, self.read(image.image)) for image in images)

    def read(self, image: PreparedImage) -> Tensor:
        """The features [kept, hidden] of an image, tile by tile."""
        flat = to_device(image.pixels.ravel(), torch.float32, self.device)
        return self.projector(self.tower(flat.view(image.pixels.shape).to(self.dtype), image.grid).flatten(0, 1))
