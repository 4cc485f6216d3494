"""A tokenizer.json of ours can be read by libraries of every age: the form of its merges is what they differ in."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram

from text_generation_server.tokenization.saving import save_tokenizer


@pytest.mark.parametrize(
    ("pairs", "written"),
    [
        ([("a", "b"), ("ab", "ab")], ["a b", "ab ab"]),
        ([], []),
        ([("a", "b"), ("ab", " ")], [["a", "b"], ["ab", " "]]),  # a line would not tell which space parts them
        ([("#version", "b")], [["#version", "b"]]),  # a line would be taken for a heading
    ],
)
def test_merges_are_lines_unless_lines_cannot_tell_them(tmp_path: Path, pairs: list[tuple[str, str]], written: object):
    texts = dict.fromkeys(["a", "b", " ", "#version", *(text for pair in pairs for text in (*pair, "".join(pair)))])
    tokenizer = Tokenizer(BPE({text: token_id for token_id, text in enumerate(texts)}, pairs))
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"] == written
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert json.loads(again.to_str()) == json.loads(tokenizer.to_str())


def test_a_model_without_merges_is_written_as_it_is(tmp_path: Path):
    tokenizer = Tokenizer(Unigram([("é", -1.0)], unk_id=0))
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads(tokenizer.to_str())
