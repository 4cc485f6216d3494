"""What a parity case is, and the sizes that most share. The cases are in cases/, a file a family; see CONTRIBUTING.md.

Sizes are tiny, and odd where an even one could hide a mistake: vocabularies and inner sizes that no number of ranks
divides, head counts that are no power of two, heads whose width is not hidden_size / heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from oracles.pictures import Pictures

VOCAB_SIZE = 97
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": VOCAB_SIZE}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
LLAMA = {**TOKENS, **SIZES, "intermediate_size": 45, "num_key_value_heads": 2}
"""Keys that models of Llama's kind share: grouped queries, an inner size that no number of ranks divides."""

Tensors = dict[str, Tensor]


def unchanged(tensors: Tensors) -> Tensors:
    """The tensors as transformers saves them."""
    return tensors


def plain_logits(model: Any, token_ids: Tensor) -> Tensor:
    """What transformers answers to [1, T] tokens: [T, vocab]."""
    logits: Tensor = model(token_ids, use_cache=False).logits[0]
    return logits


@dataclass(frozen=True)
class Case:
    """One tiny model.

    row: the models that it stands for, as docs/models.md lists them.
    model_type, config: what transformers' AutoConfig is made of, for the model that answers.
    notes: what the case is there for.
    plain_norms: norm weights are near 1 (not where the architecture adds 1 itself).
    attention: transformers' implementation. shards: save in files of about this size.
    checkpoint: from the tensors that transformers saves to those of the files that are served.
    written: the config.json that is served, where it is not the one that transformers writes.
    forward: how the model is asked, where plain asking gives another answer than the architecture's.
    tolerance: of logits, absolute; random weights of some kinds make them large.
    shares: whether slots tell all of a prompt, so that another sequence may take them over.
    pictures: how it is shown images, None where it takes none.
    """

    name: str
    row: str
    model_type: str
    config: Mapping[str, Any]
    notes: str
    plain_norms: bool = True
    attention: str = "eager"
    shards: str = "1GB"
    checkpoint: Callable[[Tensors], Tensors] = unchanged
    written: Mapping[str, Any] | None = None
    forward: Callable[[Any, Tensor], Tensor] = plain_logits
    tolerance: float = 1e-4
    shares: bool = True
    pictures: Pictures | None = None

    def __str__(self) -> str:
        return self.name


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """The config keys of a rotary embedding."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def without_prefix(prefix: str) -> Callable[[Tensors], Tensors]:
    """Names as hub files of some families have them."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
