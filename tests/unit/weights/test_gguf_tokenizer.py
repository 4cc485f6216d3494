"""The converted tokenizer: ids, splitting of each kind, special tokens, chat template."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import read_container
from text_generation_server.weights.gguf.directory import convert
from text_generation_server.weights.gguf.tokenizer import build_tokenizer

WriteGGUF = Callable[..., Path]


@pytest.fixture
def load(write_gguf: WriteGGUF, tmp_path: Path) -> Callable[..., PreTrainedTokenizerFast]:
    """Writes, converts and loads a tokenizer as a user of the directory does."""

    def load(**options: object) -> PreTrainedTokenizerFast:
        target = tmp_path / "converted"
        target.mkdir()
        convert(write_gguf(**options), target)
        tokenizer = AutoTokenizer.from_pretrained(target)
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        return tokenizer

    return load


Load = Callable[..., PreTrainedTokenizerFast]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_text_comes_back(load: Load, pre: str) -> None:
    tokenizer = load(pre=pre)
    for text in ("the cat and  the 12345 dogs", "naïve 日本語 🙂\n\n\tx", "", " "):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["Ġ", "Ġ1234", "Ġthe"]),
        ("smollm", ["ĠĠ", "1", "2", "3", "4", "Ġthe"]),
        ("llama-bpe", ["Ġ", "Ġ", "123", "4", "Ġthe"]),
        ("qwen2", ["Ġ", "Ġ", "1", "2", "3", "4", "Ġthe"]),
    ],
)
def test_digits_split_as_the_kind_says(write_gguf: WriteGGUF, pre: str, expected: list[str]) -> None:
    pre_tokenizer = build_tokenizer(read_container(write_gguf(pre=pre))).pre_tokenizer
    assert pre_tokenizer is not None
    assert [word for word, _ in pre_tokenizer.pre_tokenize_str("  1234 the")] == expected


def test_special_tokens_are_whole_and_left_out_of_text(load: Load) -> None:
    tokenizer = load()
    assert tokenizer.tokenize(" the<|im_end|>and") == ["Ġthe", "<|im_end|>", "and"]
    assert tokenizer.decode([2], skip_special_tokens=True) == ""
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.unk_token_id == 0
    assert tokenizer.model_max_length == 128


def test_the_chat_template_is_kept(load: Load) -> None:
    text = load().apply_chat_template([{"role": "user", "content": "the"}], tokenize=False)
    assert text == "<|im_start|>user\nthe<|im_end|>\n"


@pytest.mark.parametrize(
    ("pre", "asked", "expected"),
    [("smollm", None, False), ("smollm", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_bos_is_added_where_the_file_or_the_kind_says(load: Load, pre: str, asked: bool | None, expected: bool) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        if asked is not None:
            writer.add_add_bos_token(asked)

    ids = load(pre=pre, edit=edit).encode("the")
    assert (ids[0] == 1) is expected


def test_eos_is_added_where_the_file_says(load: Load) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_add_eos_token(True)
        writer.add_add_bos_token(True)

    ids = load(edit=edit).encode("the")
    assert (ids[0], ids[-1]) == (1, 2)


def test_every_chat_template_is_kept(load: Load) -> None:
    tokenizer = load(edit=lambda writer: writer.add_string("tokenizer.chat_template.tool_use", "tools"))
    turns = [{"role": "user", "content": "the"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, chat_template="tool_use") == "tools"
    assert "im_start" in str(tokenizer.apply_chat_template(turns, tokenize=False, chat_template="default"))


def test_merges_of_unknown_tokens_are_refused(write_gguf: WriteGGUF) -> None:
    container = read_container(write_gguf())
    broken = replace(container, metadata={**container.metadata, "tokenizer.ggml.merges": ["no such"]})
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.merges do not fit"):
        build_tokenizer(broken)


def test_another_tokenizer_model_is_refused(write_gguf: WriteGGUF) -> None:
    container = read_container(write_gguf())
    other = replace(container, metadata={**container.metadata, "tokenizer.ggml.model": "bert"})
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.model is 'bert', expected gpt2 or llama"):
        build_tokenizer(other)
