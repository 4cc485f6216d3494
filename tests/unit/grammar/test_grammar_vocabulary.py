"""The bytes of tokens, from byte-level and SentencePiece vocabularies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tokenization.token_bytes import token_bytes


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> TokenizerAdapter:
    """All byte characters, two merges, an added word and a special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate([*alphabet, "Ġa", "Ã©"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ã", "©")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("né e", normalized=False)])
    tokenizer.add_special_tokens(["<|end|>"])
    directory: Path = tmp_path_factory.mktemp("byte_level")
    tokenizer.save(str(directory / "tokenizer.json"))
    return TokenizerAdapter.load(directory)


@given(st.text())
def test_byte_level_tokens_add_up_to_the_text(byte_level: TokenizerAdapter, text: str) -> None:
    every = byte_level.token_bytes()
    assert b"".join(every[token_id] for token_id in byte_level.encode(text)) == text.encode()


def test_added_tokens_are_spelled_as_they_are(byte_level: TokenizerAdapter) -> None:
    assert byte_level.token_bytes()[-4:] == [b" a", "é".encode(), "né e".encode(), b"<|end|>"]


PIECES = {"▁the": b" the", "the": b"the", "<0x0A>": b"\n", "<0xE2>": b"\xe2", "▁▁": b"  ", "é": "é".encode(), "": b""}


@pytest.mark.parametrize(("piece", "expected"), PIECES.items())
def test_sentencepiece_pieces(piece: str, expected: bytes) -> None:
    assert token_bytes(["▁", piece], set())[1] == expected


def test_added_pieces_are_spelled_as_they_are() -> None:
    assert token_bytes(["▁", "<0x0A>", "<0x0A>"], {2}) == [b" ", b"\n", b"<0x0A>"]
