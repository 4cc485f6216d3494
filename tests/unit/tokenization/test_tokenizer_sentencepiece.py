"""Directories with tokenizer.model alone, against what SentencePiece itself said to models/make.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tokenization.spm_file import SentencePieceModel

MODELS = Path(__file__).parent / "models"
EXPECTED: dict[str, list[tuple[str, list[int], str]]] = json.loads((MODELS / "expected.json").read_text())
NAMES = sorted(EXPECTED)
CASES = [(name, *row) for name in NAMES for row in EXPECTED[name]]
BOS, EOS = 1, 2
UNKNOWN = " \N{DOUBLE QUESTION MARK} "
"""How SentencePiece writes the unknown token; fast tokenizers write its name."""


def directory(path: Path, name: str, **config: Any) -> Path:
    shutil.copy(MODELS / f"{name}.model", path / "tokenizer.model")
    if config:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenizerAdapter]:
    return {name: TokenizerAdapter.load(directory(tmp_path_factory.mktemp(name), name)) for name in NAMES}


@pytest.mark.parametrize(("name", "text", "ids", "decoded"), CASES)
def test_ids_and_texts_are_those_of_sentencepiece(
    tokenizers: dict[str, TokenizerAdapter], name: str, text: str, ids: list[int], decoded: str
) -> None:
    assert tokenizers[name].encode(text, add_special_tokens=False) == ids
    assert tokenizers[name].encode(text) == [BOS, *ids]
    assert tokenizers[name].decode(ids) == decoded.replace(UNKNOWN, "<unk>")


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_come_from_the_model(tokenizers: dict[str, TokenizerAdapter], name: str) -> None:
    pieces = SentencePieceModel.read((MODELS / f"{name}.model").read_bytes()).pieces
    assert tokenizers[name].special_ids == {0, BOS, EOS}
    assert tokenizers[name].vocab_size == len(pieces)
    assert tokenizers[name].encode("a</s>", add_special_tokens=False)[-1] == EOS


@pytest.mark.parametrize("name", NAMES)
def test_places_are_those_of_the_text(tokenizers: dict[str, TokenizerAdapter], name: str) -> None:
    text = "The brown fox\njumps"
    ours = tokenizers[name]
    places = ours.locate(text)[1:]
    assert [place.id for place in places] == ours.encode(text, add_special_tokens=False)
    assert {at for place in places for at in range(place.start, place.stop)} == set(range(len(text)))
    assert [place.start for place in places] == sorted(place.start for place in places)
    assert text[places[-1].start : places[-1].stop] == ours.token_text(places[-1].id)


@pytest.mark.parametrize(("legacy", "prefixed"), [(None, True), (True, True), (False, False)])
def test_parts_after_special_tokens_begin_with_a_space_unless_legacy_is_off(
    tmp_path: Path, legacy: bool | None, prefixed: bool
) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}
    ours = TokenizerAdapter.load(directory(tmp_path, "bpe", **config))
    text, words, _ = EXPECTED["bpe"][0]
    both = ours.encode(f"{text}</s>{text}", add_special_tokens=False)
    assert both[: len(words) + 1] == [*words, EOS]
    assert (both[len(words) + 1 :] == words) is prefixed


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, [BOS], []),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False, "add_eos_token": True}, [], [EOS]),
        ({"tokenizer_class": "BaichuanTokenizer", "auto_map": {"AutoTokenizer": ["x.Y", None]}}, [BOS], []),
    ],
)
def test_bos_and_eos_are_put_around_texts_as_the_flags_say(
    tmp_path: Path, config: dict[str, Any], before: list[int], after: list[int]
) -> None:
    ours = TokenizerAdapter.load(directory(tmp_path, "bpe", **config, bos_token="<s>", eos_token="</s>"))
    text, ids, _ = EXPECTED["bpe"][0]
    assert ours.encode(text) == [*before, *ids, *after]
    assert ours.eos_ids == {EOS}


def test_further_tokens_may_be_in_the_older_file(tmp_path: Path) -> None:
    directory(tmp_path, "bpe", tokenizer_class="LlamaTokenizer", pad_token="<pad>")
    size = len(SentencePieceModel.read((MODELS / "bpe.model").read_bytes()).pieces)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<call>": size + 1, "<pad>": size}))
    ours = TokenizerAdapter.load(tmp_path)
    assert ours.encode("<pad><call>", add_special_tokens=False) == [size, size + 1]
    assert ours.special_ids == {0, BOS, EOS, size}


def test_a_token_that_cannot_have_its_id_is_named(tmp_path: Path) -> None:
    directory(tmp_path, "bpe", added_tokens_decoder={"9000": {"content": "<far>"}})
    with pytest.raises(UnsupportedModel, match="list '<far>' as token 9000"):
        TokenizerAdapter.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\n\x09half", b"not a model"])
def test_a_damaged_model_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.model cannot be used"):
        TokenizerAdapter.load(tmp_path)


@pytest.mark.parametrize("size", [1, 50, 3000])
def test_half_a_model_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "tokenizer.model").write_bytes((MODELS / "bpe.model").read_bytes()[:size])
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.model cannot be used: it ends early"):
        TokenizerAdapter.load(tmp_path)


def test_a_class_that_does_more_is_not_guessed(tmp_path: Path) -> None:
    config = {"tokenizer_class": "UnheardTokenizer", "auto_map": {"AutoTokenizer": ["unheard.UnheardTokenizer", None]}}
    with pytest.raises(UnsupportedModel, match=r"is code in that directory \(UnheardTokenizer\)"):
        TokenizerAdapter.load(directory(tmp_path, "bpe", **config))
