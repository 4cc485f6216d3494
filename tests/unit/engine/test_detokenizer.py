"""Incremental texts against decoding everything at once, on byte splits and on trained tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models

from text_generation_server.engine.detokenizer import IncrementalText

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
EOS = 0


@dataclass
class BytesTokenizer:
    """Tokens are byte strings, token 0 is special. Remembers how many ids each decoding took."""

    vocabulary: list[bytes] = field(default_factory=lambda: [b"</s>"])
    decoded: list[int] = field(default_factory=list)
    eos_ids: frozenset[int] = frozenset({EOS})
    special_ids: frozenset[int] = frozenset({EOS})

    def ids(self, *pieces: bytes) -> list[int]:
        self.vocabulary.extend(pieces)
        return list(range(len(self.vocabulary) - len(pieces), len(self.vocabulary)))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        self.decoded.append(len(ids))
        kept = [self.vocabulary[token] for token in ids if not (skip_special_tokens and token in self.special_ids)]
        return b"".join(kept).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])


class SentencePieceTokenizer:
    """A word's first piece carries its space, which decoding drops at the start of a text; bytes for the rest."""

    pieces = ("<s>", "</s>", "▁hello", "▁world", "s", "▁", *(f"<0x{byte:02X}>" for byte in range(256)))
    eos_ids = frozenset({1})
    special_ids = frozenset({0, 1})

    def __init__(self) -> None:
        vocabulary = {piece: token for token, piece in enumerate(self.pieces)}
        self._tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
        self._tokenizer.add_special_tokens(["<s>", "</s>"])
        self._tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )

    def ids(self, *pieces: str) -> list[int]:
        return [self.pieces.index(piece) for piece in pieces]

    def bytes_of(self, text: str) -> list[int]:
        return [6 + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])


def split(text: str, cuts: list[int]) -> list[bytes]:
    data = text.encode()
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=UNREADABLE), max_size=30)
cut_lists = st.lists(st.integers(0, 200), max_size=60)


@given(texts, texts, cut_lists, cut_lists)
def test_any_split_of_a_text_adds_up_to_it(prompt: str, answer: str, cuts: list[int], prompt_cuts: list[int]) -> None:
    tokenizer = BytesTokenizer()
    prompt_ids = tokenizer.ids(*split(prompt, prompt_cuts))
    pieces = split(answer, cuts)
    text = IncrementalText(prompt_ids, tokenizer)
    written, data = "", b""
    for piece, token in zip(pieces, tokenizer.ids(*pieces), strict=True):
        data += piece
        written += text.append(token)
        readable = data.decode("utf-8", "ignore")
        assert written == readable if data == readable.encode() else len(written) <= len(readable)
    assert written == answer
    assert text.generated_text() == answer


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=120), cut_lists)
@example([b"\x80"] * 200, [])
@example([b""] * 200, [])
def test_work_a_token_is_bounded_whatever_the_bytes(pieces: list[bytes], cuts: list[int]) -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText(tokenizer.ids(*split("a long prompt " * 9, cuts)), tokenizer)
    for token in tokenizer.ids(*pieces):
        tokenizer.decoded.clear()
        text.append(token)
        assert len(tokenizer.decoded) <= 3
        assert sum(tokenizer.decoded) <= 80


@pytest.mark.parametrize("garbage", range(40))
def test_a_character_after_any_run_of_invalid_bytes_is_whole(garbage: int) -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText([], tokenizer)
    pieces = [b"\x80"] * garbage + [b"\xf0", b"\x9f", b"\x99", b"\x82"]
    written = "".join(text.append(token) for token in tokenizer.ids(*pieces))
    assert written == UNREADABLE * garbage + "🙂"
    assert text.generated_text() == written


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText(tokenizer.ids(b"prompt"), tokenizer)
    ids = tokenizer.ids(b"a\xf0", b"\x9f", b"\x99\x82b", b"\xc3", b"\xa9")
    assert [text.append(token) for token in ids] == ["", "", "a🙂b", "", "é"]


def test_an_unfinished_last_character_is_left_out_of_the_whole_text_only() -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText(tokenizer.ids(b"p"), tokenizer)
    assert [text.append(token) for token in tokenizer.ids(b"ab", b"c\xf0", b"\x9f")] == ["ab", "", ""]
    assert text.generated_text() == "abc"


def test_an_unreadable_character_inside_a_text_is_passed_through() -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText([], tokenizer)
    assert [text.append(token) for token in tokenizer.ids(b"\xff", b"x")] == ["", f"{UNREADABLE}x"]
    assert text.generated_text() == f"{UNREADABLE}x"


def test_a_special_token_is_literal_in_its_text_and_absent_from_the_whole() -> None:
    tokenizer = BytesTokenizer()
    text = IncrementalText(tokenizer.ids(b"p"), tokenizer)
    assert [text.append(token) for token in (*tokenizer.ids(b"done"), EOS)] == ["done", "</s>"]
    assert text.generated_text() == "done"


def test_nothing_generated_is_an_empty_text() -> None:
    assert IncrementalText([EOS], BytesTokenizer()).generated_text() == ""


def test_the_space_of_the_first_word_is_kept_once() -> None:
    tokenizer = SentencePieceTokenizer()
    text = IncrementalText(tokenizer.ids("<s>", "▁hello"), tokenizer)
    assert [text.append(token) for token in tokenizer.ids("▁world", "s", "</s>")] == [" world", "s", "</s>"]
    assert text.generated_text() == " worlds"


@pytest.mark.parametrize("prompt", [["▁hello"], ["▁hello"] * 3, ["▁hello"] * 9], ids=len)
def test_short_prompts_give_the_texts_of_long_ones(prompt: list[str]) -> None:
    tokenizer = SentencePieceTokenizer()
    text = IncrementalText(tokenizer.ids(*prompt), tokenizer)
    ids = [*tokenizer.ids("▁world", "▁"), *tokenizer.bytes_of("🙂")]
    assert [text.append(token) for token in ids] == [" world", " ", "", "", "", "🙂"]


@given(st.lists(st.sampled_from(["▁hello", "▁world", "s", "▁", "🙂", "é"]), min_size=1, max_size=20), st.integers(1, 8))
def test_texts_add_up_to_what_the_whole_decodes_to(words: list[str], prompt_words: int) -> None:
    tokenizer = SentencePieceTokenizer()
    prompt = tokenizer.ids(*(["▁hello"] * prompt_words))
    ids = [
        token
        for word in words
        for token in (tokenizer.ids(word) if word in tokenizer.pieces else tokenizer.bytes_of(word))
    ]
    text = IncrementalText(prompt, tokenizer)
    written = "".join(text.append(token) for token in ids)
    assert written == tokenizer.decode([*prompt, *ids])[len(tokenizer.decode(prompt)) :]
    assert text.generated_text() == written
