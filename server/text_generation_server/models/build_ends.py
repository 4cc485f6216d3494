"""Makes what every kind of model has around its layers: norms, the table of embeddings, the output head.

Knows no architecture and no layers. The vocabulary is cut over ranks.
"""

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.norm import Identity, Norm, layer_norm, rms_norm
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.decoder import DIFFERENT_HEAD, HeadSpec, HeadTie, NormKind, NormSpec
from text_generation_server.weights.layout import partition_of


class EndsBuilder:
    """embedding, head: names in the checkpoint. width: of embeddings, and of what the head multiplies.

    more: how many of the vocabulary, the last, are in tensors of their own, and the names of those; they are not tied.
    """

    def __init__(
        self,
        reader: TensorReader,
        group: TensorParallel,
        *,
        vocab_size: int,
        width: int,
        embedding: str,
        head: str,
        more: tuple[int, str, str] = (0, "", ""),
    ) -> None:
        self._more, self._more_embeddings, self._more_head = more
        self._reader = reader
        self._group = group
        self._vocab_size, self._width = vocab_size, width
        self._embedding_name, self._head_name = embedding, head
        self._mine = partition_of(vocab_size, group.rank, group.world_size)

    def table(self) -> Tensor:
        """This rank's rows of the embeddings."""
        stored = [(self._embedding_name, self._vocab_size - self._more), (self._more_embeddings, self._more)]
        return self._reader.table([one for one in stored if one[1]], self._width, self._mine)

    def embedding(self, table: Tensor) -> VocabParallelEmbedding:
        """The embeddings of this table."""
        return VocabParallelEmbedding(table, self._mine.start, self._reader.dtype, self._group)

    def head(self, table: Tensor, spec: HeadSpec) -> ParallelLMHead:
        """The output head; `table` are the embeddings that it may be tied to."""
        reader = self._reader
        tied, chosen = self._is_tied(spec.tie), self._vocab_size - spec.unchosen
        stored = StoredLinear(self._embedding_name if tied else self._head_name, chosen - self._more, self._width)
        bias = f"{self._head_name}.bias" if spec.bias else None
        if tied:
            assert not spec.unchosen and not self._more, "such a table is no head"
            kernel = reader.tied_head(table, stored, self._mine, bias)
            reader.checkpoint.leave(f"{self._head_name}.weight")
        else:
            mine = partition_of(chosen, self._group.rank, self._group.world_size)
            more = StoredLinear(self._more_head, self._more, self._width) if self._more else None
            kernel = reader.head(stored, mine, bias, spec.normalised, more)
        return ParallelLMHead(kernel, self._vocab_size, self._group, spec.scale, spec.softcap, spec.unchosen)

    def _is_tied(self, tie: HeadTie) -> bool:
        """Whether the embedding is the head. One that differs counts more than a config; an equal one is kept once."""
        checkpoint = self._reader.checkpoint
        embedding, head = f"{self._embedding_name}.weight", f"{self._head_name}.weight"
        if tie is HeadTie.SEPARATE or not checkpoint.has(head):
            return tie is not HeadTie.SEPARATE
        shape = (self._vocab_size, self._width)
        same = torch.equal(checkpoint.view(head, shape), checkpoint.view(embedding, shape))
        if not same and tie is HeadTie.TIED:
            logger.warning(DIFFERENT_HEAD, head, embedding)
        return same


def build_norm(reader: TensorReader, spec: NormSpec, name: str, hidden: int) -> Norm:
    """The norm of this name; none where a model has none."""
    if not name:
        return Identity()
    weight = reader.vector(f"{name}.weight", hidden) if spec.weight else None
    if spec.kind is NormKind.LAYER:
        bias = reader.vector(f"{name}.bias", hidden) if spec.bias else None
        return layer_norm(weight, bias, spec.eps, reader.device)
    if weight is None:
        weight = torch.ones(hidden, dtype=reader.dtype, device=reader.device)
    return rms_norm(weight, spec.eps, spec.offset)
