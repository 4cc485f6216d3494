"""Token embeddings and the output head, with the vocabulary spread over ranks. Knows no checkpoint."""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.linear import LinearKernel


class VocabParallelEmbedding:
    """Each rank holds the rows of some tokens, the first being `start`. Rows become `dtype` when they are looked up."""

    def __init__(self, table: Tensor, start: int, dtype: torch.dtype, group: TensorParallel) -> None:
        self._table = table
        self._start = start
        self._dtype = dtype
        self._group = group

    def __call__(self, token_ids: Tensor) -> Tensor:
        """[T] int64 to [T, hidden], a new tensor."""
        if self._group.world_size == 1:
            return F.embedding(token_ids, self._table).to(self._dtype)
        local = token_ids - self._start
        elsewhere = (local < 0) | (local >= self._table.shape[0])
        rows = F.embedding(local.masked_fill_(elsewhere, 0), self._table).to(self._dtype)
        return self._group.all_reduce(rows.masked_fill_(elsewhere[:, None], 0.0))


class ParallelLMHead:
    """Each rank computes the logits of some tokens; every rank gets all.

    Logits are multiplied by `scale`, then bounded to ±`softcap` by tanh, if there is one. Those of the last `unchosen`
    tokens are −∞, and no rank has rows of them.
    """

    def __init__(
        self,
        kernel: LinearKernel,
        vocab_size: int,
        group: TensorParallel,
        scale: float = 1.0,
        softcap: float | None = None,
        unchosen: int = 0,
    ) -> None:
        self._unchosen = unchosen
        self._kernel = kernel
        self._vocab_size = vocab_size
        self._group = group
        self._scale = scale
        self._softcap = softcap

    def __call__(self, x: Tensor) -> Tensor:
        """[L, hidden] to logits [L, vocab_size]."""
        if x.shape[0] == 0:  # a step of prompt chunks only; kernels need not take empty input
            return torch.empty(0, self._vocab_size, dtype=x.dtype, device=x.device)
        logits = self._kernel(x)
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        logits = self._group.all_gather_last(logits)[:, : self._vocab_size - self._unchosen]
        return F.pad(logits, (0, self._unchosen), value=-torch.inf) if self._unchosen else logits
