"""TikToken vocabularies and a class in tokenizer_config.json, as in ChatGLM4's files; the class is never run."""

import base64
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.adapter import TokenizerAdapter

SPECIAL = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = "the quick brown fox's tail, the quicker the better; 12345 foxes! fine füchse 狐狸狐狸 " * 3
WORDS = re.compile(
    r"(?:'[sStTmMdD]|'(?i:re|ve|ll))|[^\r\n\W\d_]+|[^\r\n\w][^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The words of ASCII texts and letters; Python's `re` has no Unicode categories."""


def frequent_ranks() -> dict[bytes, int]:
    """All bytes, then all parts of CORPUS's words that have two to five bytes, the most frequent ones first."""
    words = [word.encode() for word in WORDS.findall(CORPUS)]
    parts = Counter(
        word[at : at + size] for word in words for size in range(2, 6) for at in range(len(word) - size + 1)
    )
    tokens = [*(bytes([byte]) for byte in range(256)), *sorted(parts, key=lambda part: (-parts[part], part))]
    return {token: rank for rank, token in enumerate(tokens)}


RANKS = frequent_ranks()
IDS = {text: len(RANKS) + place for place, text in enumerate(SPECIAL)}


def by_rank(text: str) -> list[int]:
    """The definition: each word as a whole, or joined at the first neighbours of the lowest rank until none is left."""
    return [token for word in WORDS.findall(text) for token in word_by_rank(word.encode())]


def word_by_rank(word: bytes) -> list[int]:
    parts = [word] if word in RANKS else [bytes([byte]) for byte in word]
    while ranks := [(RANKS[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in RANKS]:
        _, at = min(ranks)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [RANKS[part] for part in parts]


def save(directory: Path, tokenizer_class: str = "ChatGLM4Tokenizer") -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items()]
    (directory / "tokenizer.model").write_text("".join(lines))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_remote.Remote", None]},
        "added_tokens_decoder": {str(IDS[text]): {"content": text} | flags for text in SPECIAL},
        "additional_special_tokens": SPECIAL,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 128000,
        "tokenizer_class": tokenizer_class,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "tokenization_remote.py").write_text("raise AssertionError('remote code ran')")
    return directory


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> TokenizerAdapter:
    return TokenizerAdapter.load(save(tmp_path_factory.mktemp("glm")), trust_remote_code=True)


@given(text=st.text(alphabet="the quickfoxs'S123!.,;\n_ äü狐", max_size=60))
def test_ids_are_those_of_the_ranks(glm: TokenizerAdapter, text: str) -> None:
    ids = glm.encode(text, add_special_tokens=False)
    assert ids == by_rank(text)
    assert glm.decode(ids) == text


@given(text=st.text(max_size=40))
def test_every_text_comes_back(glm: TokenizerAdapter, text: str) -> None:
    assert glm.decode(glm.encode(text, add_special_tokens=False)) == text
    assert glm.decode(glm.encode(text), skip_special_tokens=True) == text


def test_texts_begin_with_gmask_and_sop(glm: TokenizerAdapter) -> None:
    prefix = [IDS["[gMASK]"], IDS["<sop>"]]
    text = "the quick brown fox"
    assert glm.encode(text) == [*prefix, *by_rank(text)]
    assert glm.encode(text, truncate=4) == [*prefix, *by_rank(text)[-2:]]
    assert glm.decode(glm.encode(text)) == "[gMASK]<sop>" + text


def test_special_tokens_are_found_in_texts(glm: TokenizerAdapter) -> None:
    prompt = "<|user|>\nthe fox<|assistant|>"
    ids = glm.encode(prompt, add_special_tokens=False)
    assert ids == [IDS["<|user|>"], *by_rank("\nthe fox"), IDS["<|assistant|>"]]
    assert glm.special_ids == set(IDS.values())
    assert glm.eos_ids == {IDS["<|endoftext|>"]}
    assert glm.vocab_size == len(RANKS) + len(SPECIAL)
    assert glm.model_max_length == 128000


def test_places_are_those_of_the_text(glm: TokenizerAdapter) -> None:
    text = "the 狐 fox"
    places = glm.locate(text)
    assert [(place.start, place.stop) for place in places[:2]] == [(0, 0), (0, 0)]
    assert {at for place in places for at in range(place.start, place.stop)} == set(range(len(text)))


def test_a_class_without_a_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"is code in that directory \(OtherTokenizer\).*--trust-remote-code"):
        TokenizerAdapter.load(save(tmp_path, "OtherTokenizer"))


def test_a_special_token_that_is_missing_is_named(tmp_path: Path) -> None:
    config = json.loads((save(tmp_path) / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"], config["additional_special_tokens"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=r"\[gMASK\], <sop>, which the tokenizer does not have"):
        TokenizerAdapter.load(tmp_path)


@pytest.mark.parametrize("line", ["AAAA", "AA=A 9", "AAAA x", "AAAA 9999"])
def test_a_damaged_vocabulary_is_named(tmp_path: Path, line: str) -> None:
    with (save(tmp_path) / "tokenizer.model").open("a") as file:
        file.write(line)
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.model cannot be used"):
        TokenizerAdapter.load(tmp_path)
