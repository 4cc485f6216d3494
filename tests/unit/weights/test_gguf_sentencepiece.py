"""SentencePiece vocabularies without merges: the merges made from scores give what SentencePiece itself would."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.weights.gguf.container import Container, Value
from text_generation_server.weights.gguf.tokenizer import build_tokenizer

_SPACE = "\u2581"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LETTERS = [_SPACE, *"abcdt"]
_JOINED = [
    _SPACE + "t",
    "ab",
    "cd",
    "abcd",
    "bc",
    "aa",
    "aab",
    _SPACE + _SPACE,
    "da",
    _SPACE + "tab",
    "tab",
    "dd",
    "ddd",
]
_TOKENS = ["<unk>", "<s>", "</s>", *_BYTES, *_LETTERS, *_JOINED]
_KINDS = [2, 3, 3, *[6] * 256, *[1] * (len(_LETTERS) + len(_JOINED))]
# As in trained vocabularies, a piece's score is the less the later it was found; letters come last.
_SCORES = [0.0] * 259 + [-1000.0 - number for number in range(len(_LETTERS))] + [-float(n) for n in range(len(_JOINED))]


def _container(**more: bool) -> Container:
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(_TOKENS),
        "tokenizer.ggml.token_type": list(_KINDS),
        "tokenizer.ggml.scores": list(_SCORES),
        "tokenizer.ggml.bos_token_id": 1,
    }
    return Container(Path("model.gguf"), {**metadata, **{f"tokenizer.ggml.{key}": more[key] for key in more}}, {})


def _reference(text: str) -> list[str]:
    """Kudo and Richardson's algorithm, word for word: join the best-scored neighbours, the leftmost of equals."""
    scores = dict(zip(_TOKENS, _SCORES, strict=True))
    pieces = list(_SPACE + text.replace(" ", _SPACE)) if text else []
    while True:
        unions = [(scores.get(left + right), at) for at, (left, right) in enumerate(pairwise(pieces))]
        known = [(-score, at) for score, at in unions if score is not None]
        if not known:
            break
        _, at = min(known)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return [token for piece in pieces for token in ([piece] if piece in scores else _as_bytes(piece))]


def _as_bytes(character: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in character.encode()]


@given(st.text(alphabet="abcdt é🙂", max_size=40))
def test_tokens_are_those_of_sentencepiece(text: str) -> None:
    tokenizer = build_tokenizer(_container())
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert encoding.tokens == _reference(text)
    assert tokenizer.decode(encoding.ids) == text


@pytest.mark.parametrize(("asked", "tokens"), [({}, ["<s>", "▁tab"]), ({"add_bos_token": False}, ["▁tab"])])
def test_bos_comes_first_unless_the_file_says_otherwise(asked: dict[str, bool], tokens: list[str]) -> None:
    assert build_tokenizer(_container(**asked)).encode("tab").tokens == tokens


def test_the_space_in_front_can_be_left_out() -> None:
    tokenizer = build_tokenizer(_container(add_space_prefix=False))
    encoding = tokenizer.encode("tab tab", add_special_tokens=False)
    assert encoding.tokens == ["tab", "▁tab"]
    assert tokenizer.decode(encoding.ids) == "tab tab"


def test_control_tokens_are_whole() -> None:
    assert build_tokenizer(_container()).encode("ab</s>", add_special_tokens=False).tokens == ["▁", "ab", "</s>"]
