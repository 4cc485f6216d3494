"""Root mean square norms of groups of channels, which may be spread over ranks. Knows no checkpoint.

Dimensions: T tokens, D channels of the rank, g groups that it has a part of.
"""

import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel


class GroupsRmsNorm:
    """x / sqrt(mean of its group's x² + eps) · weight, all of each group on this rank. weight: [D]. groups: g."""

    def __init__(self, weight: Tensor, groups: int, eps: float) -> None:
        self._weight, self._groups, self._eps = weight, groups, eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, D] to the same shape."""
        apart = x.view(len(x), self._groups, -1)
        return F.rms_norm(apart, apart.shape[-1:], None, self._eps).flatten(1) * self._weight


class SpreadRmsNorm:
    """The same of one group's channels, some of them on this rank; ranks add up their squares.

    weight: [D]. group_of: which group this rank's is. groups: of the model. size: channels of each.
    """

    def __init__(
        self, weight: Tensor, group_of: int, groups: int, size: int, eps: float, ranks: TensorParallel
    ) -> None:
        self._weight, self._group_of, self._groups = weight, group_of, groups
        self._size, self._eps, self._ranks = size, eps, ranks

    def __call__(self, x: Tensor) -> Tensor:
        """[T, D] to the same shape."""
        wide = x.float()
        sums = wide.new_zeros(len(x), self._groups)
        sums[:, self._group_of] = wide.square().sum(1)
        own = self._ranks.all_reduce(sums)[:, self._group_of, None]
        return (wide * (own / self._size + self._eps).rsqrt()).to(x.dtype) * self._weight
