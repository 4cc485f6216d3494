"""The vocabulary in the form that the grammar library wants. Knows nothing of grammars."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llguidance import LLTokenizer, TokenizerWrapper


def build_vocabulary(
    tokens: Sequence[bytes], eos_ids: frozenset[int], special_ids: frozenset[int], vocab_size: int
) -> LLTokenizer:
    """The tokens of a model with `vocab_size` logits.

    Args:
        tokens: the bytes of each token, by id; those beyond the logits are left out, missing ones are never allowed.
        eos_ids: allowed exactly where an answer may end; at least one.
        special_ids: never allowed as text, whatever their bytes.
    """
    known = list(tokens[:vocab_size])
    padded = [*known, *[b""] * (vocab_size - len(known))]
    # The library takes an empty token for an error in the vocabulary; a special one it leaves out.
    special = special_ids | eos_ids | {token_id for token_id, text in enumerate(padded) if not text}
    spelled = [f"<{token_id}>".encode() if token_id in special else text for token_id, text in enumerate(padded)]
    ends = sorted(token_id for token_id in eos_ids if token_id < vocab_size)
    wrapper = TokenizerWrapper(_Tokens(spelled, ends[0], sorted(i for i in special if i < vocab_size)))
    return LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=ends)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What the library reads; it encodes text only where a grammar's tokens are forced, which we never ask for."""

    tokens: list[bytes]
    eos_token_id: int
    special_token_ids: list[int]
    bos_token_id: int | None = field(default=None)

    def __call__(self, text: bytes) -> list[int]:
        return []
