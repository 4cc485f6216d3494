"""When a generation ends: the ids' rule, and the text's rule against the whole text that it never keeps."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mocks.byte_tokenizer import ByteTokenizer
from text_generation_server.engine.detokenizer import IncrementalText
from text_generation_server.engine.stopping import IdRule, TextRule
from text_generation_server.engine.types import FinishReason, StoppingParams

EOS = frozenset({2, 7})


class TokensOfBytes(ByteTokenizer):
    """Token 0 is special and reads `<end>`; the others are byte strings."""

    special_ids = frozenset({0})

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = [b"<end>", *tokens]

    def decode(self, ids, skip_special_tokens: bool = False) -> str:
        kept = [self._tokens[token] for token in ids if token or not skip_special_tokens]
        return b"".join(kept).decode("utf-8", "replace")


@dataclass
class Said:
    """The texts of the tokens up to the end, the whole text, and whether a stop sequence was the end."""

    texts: list[str]
    whole: str
    stopped: bool


def say(tokens: list[bytes], *sequences: str, special: bool = False) -> Said:
    rule = TextRule(IncrementalText([], TokensOfBytes(tokens)), sequences)
    texts = list(_until_stopped(rule, [*range(1, len(tokens) + 1), *([0] if special else [])]))
    texts[-1:] = [text + rule.rest() for text in texts[-1:]]
    return Said(texts, rule.generated_text(), rule.stopped)


def _until_stopped(rule: TextRule, ids: list[int]) -> Iterator[str]:
    for token in ids:
        yield rule.append(token)
        if rule.stopped:
            return


def test_length_counts_every_token() -> None:
    rule = IdRule(StoppingParams(3), EOS)
    assert [rule.accept(5) for _ in range(3)] == [None, None, FinishReason.LENGTH]
    assert rule.generated == 3


@pytest.mark.parametrize("token", sorted(EOS))
def test_any_end_token_ends_unless_ignored(token: int) -> None:
    assert IdRule(StoppingParams(9), EOS).accept(token) is FinishReason.EOS_TOKEN
    assert IdRule(StoppingParams(9, ignore_eos=True), EOS).accept(token) is None


def test_length_comes_before_an_end_token() -> None:
    assert IdRule(StoppingParams(1), EOS).accept(2) is FinishReason.LENGTH


def test_tokens_that_a_request_names_end_it_whatever_ends_else() -> None:
    named = IdRule(StoppingParams(9, ignore_eos=True, stop_token_ids=(5,)), EOS)
    assert [named.accept(token) for token in (2, 7, 5)] == [None, None, FinishReason.EOS_TOKEN]
    assert (named.ends, named.untold) == ({5}, {5})
    assert IdRule(StoppingParams(9, stop_token_ids=(5,)), EOS).ends == {2, 5, 7}


@pytest.mark.parametrize(("least", "texts"), [(0, ["ab"]), (1, ["ab", "c"]), (2, ["ab", "cab", "c"]), (-3, ["ab"])])
def test_the_first_tokens_complete_no_sequence(least: int, texts: list[str]) -> None:
    rule = TextRule(IncrementalText([], TokensOfBytes([b"ab", b"cab", b"c"])), ("ab", "bc"), least)
    assert list(_until_stopped(rule, [1, 2, 3])) == texts


@pytest.mark.parametrize("sequence", [".*[", "$", "\\d", "(a"])
def test_sequences_are_literal(sequence: str) -> None:
    assert say([b"aaa 1", sequence.encode(), b"!"], sequence).texts == ["aaa 1", sequence]


def test_an_empty_sequence_never_stops() -> None:
    assert not say([b"a", b"b"], "", "c").stopped


@pytest.mark.parametrize(
    ("tokens", "sequences", "texts"),
    [
        ([b"a b", b"cd", b"e"], ["bc"], ["a b", "c"]),
        ([b"abcd", b"e"], ["bcd", "b"], ["ab"]),  # the one that ends first
        ([b"stop\xe2", b"\x82\xac!"], ["stop"], ["stop"]),  # complete, behind it half a character
        ([b"sto", b"pxy\xe2"], ["stop"], ["sto", "p"]),
        ([b"a\xf0\x9f", b"\x98\x80b\xc3", b"\xa9"], ["😀"], ["", "a😀"]),
        ([b"x\xe2", b"\x82", b"\xacy"], ["€y"], ["", "", "x€y"]),
    ],
)
def test_the_text_is_cut_behind_the_sequence(tokens: list[bytes], sequences: list[str], texts: list[str]) -> None:
    assert say(tokens, *sequences) == Said(texts, "".join(texts), True)


def test_a_sequence_within_a_special_token_cuts_only_what_is_streamed() -> None:
    assert say([b"nd>"], "<e", special=True) == Said(["nd>", "<e"], "nd>", True)


def test_characters_held_back_at_the_end_come_with_the_last_token() -> None:
    assert say([b"ab\xf0"]) == Said(["ab"], "ab", False)
    assert say([b"ab\xf0"], special=True) == Said(
        ["", "ab\N{REPLACEMENT CHARACTER}<end>"], "ab\N{REPLACEMENT CHARACTER}", False
    )


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


@given(
    st.text("ab🙂é", max_size=60),
    st.lists(st.integers(0, 300), max_size=60),
    st.lists(st.text("ab🙂é", min_size=1, max_size=6), min_size=1, max_size=3),
)
@example("x" * 700 + "y" * 350 + "z", list(range(1100)), ["y" * 350])
def test_it_ends_with_the_token_that_completes_the_first_sequence(
    text: str, cuts: list[int], sequences: list[str]
) -> None:
    tokens = cut(text.encode(), cuts)
    ends = [text.find(one) + len(one) for one in sequences if one in text]
    said = say(tokens, *sequences)
    assert said.stopped == bool(ends)
    assert "".join(said.texts) == said.whole == text[: min(ends, default=len(text))]
    if ends:
        before = b"".join(tokens[: len(said.texts) - 1]).decode("utf-8", "ignore")
        assert not any(one in before for one in sequences)


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=60), st.sampled_from(["a", "\x00\x00", "é", "zzz"]))
@example([b"\x80"] * 40, "a")
def test_streamed_and_whole_text_are_one_whatever_the_bytes(tokens: list[bytes], sequence: str) -> None:
    said = say(tokens, sequence)
    assert "".join(said.texts) == said.whole
    assert (sequence in said.whole) == said.stopped == said.whole.endswith(sequence)


def test_work_a_token_does_not_grow_with_the_text() -> None:
    rule = TextRule(IncrementalText([], ByteTokenizer()), ("a" * 7,))
    for _ in range(2000):
        rule.append(ord("b"))
    assert len(rule._tail) == 6
