"""Molecules, proteins and DNA in a text, which some tokenizers split into characters. Knows no model.

Such a sequence stands between two added tokens, as in [START_SMILES]CCO[END_SMILES] (Galactica, arXiv:2211.09085,
section 3.1). Nothing in the tokenizer's own steps sees both tokens and what is between, so the separator, which its
first step drops, is to be put between the characters of the text beforehand.
"""

import re
from itertools import pairwise

import tokenizers

_SEPARATOR = "SPL1T-TH1S-Pl3A5E"
_KINDS = ("SMILES", "I_SMILES", "AMINO", "DNA")
_SPAN = re.compile(rf"\[START_({'|'.join(_KINDS)})\](?P<sequence>.*?)\[END_\1\]")


def splits_spans(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether `tokenizer` knows a kind of sequence and drops the separator."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    knows_a_kind = any({f"[START_{kind}]", f"[END_{kind}]"} <= added for kind in _KINDS)
    return knows_a_kind and not tokenizer.encode(_SEPARATOR, add_special_tokens=False).ids


def separated(text: str) -> str:
    """`text` with the separator between the characters of every sequence."""
    joints = _joints(text)
    if not joints:
        return text
    return _SEPARATOR.join(text[start:stop] for start, stop in pairwise([0, *joints, len(text)]))


def places(text: str) -> list[int]:
    """For every position in `separated(text)`, the end included, the position in `text` that it comes from."""
    joints = set(_joints(text))
    lengths = (1 + len(_SEPARATOR) if position in joints else 1 for position in range(len(text) + 1))
    return [position for position, length in enumerate(lengths) for _ in range(length)]


def _joints(text: str) -> list[int]:
    return [joint for span in _SPAN.finditer(text) for joint in range(span.start("sequence") + 1, span.end("sequence"))]
