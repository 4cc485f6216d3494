"""When a generation ends: order of the reasons, literal stop sequences, bounded memory."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.engine.stopping import StopState
from text_generation_server.engine.types import FinishReason, StoppingParams

EOS = frozenset({2, 7})


def state(max_new_tokens: int = 100, *sequences: str, ignore_eos: bool = False) -> StopState:
    return StopState(StoppingParams(max_new_tokens, sequences, ignore_eos), EOS)


def reasons(stop: StopState, *texts: str) -> list[FinishReason | None]:
    return [stop.accept(5, text) for text in texts]


def test_length_counts_every_token() -> None:
    stop = state(3)
    assert reasons(stop, "a", "", "c") == [None, None, FinishReason.LENGTH]
    assert stop.generated == 3


@pytest.mark.parametrize("token", sorted(EOS))
def test_any_end_token_stops(token: int) -> None:
    stop = state()
    assert stop.accept(token, "</s>") is FinishReason.EOS_TOKEN
    assert stop.generated == 1


def test_ignored_end_tokens_are_ordinary() -> None:
    stop = state(3, "</s>!", ignore_eos=True)
    assert stop.accept(2, "</s>") is None
    assert stop.accept(5, "!") is FinishReason.STOP_SEQUENCE


def test_length_comes_first_then_end_token_then_sequences() -> None:
    assert state(1, "</s>").accept(2, "</s>") is FinishReason.LENGTH
    assert state(2, "</s>").accept(2, "</s>") is FinishReason.EOS_TOKEN
    assert state(2, "</s>").accept(3, "</s>") is FinishReason.STOP_SEQUENCE


def test_a_sequence_may_span_tokens() -> None:
    assert reasons(state(9, "stop it"), "st", "op", " ", "it") == [None, None, None, FinishReason.STOP_SEQUENCE]


def test_one_of_several_sequences_is_enough() -> None:
    assert reasons(state(9, "xyz", "b"), "a", "ab") == [None, FinishReason.STOP_SEQUENCE]


@pytest.mark.parametrize("text", ["abc", "b\n", "b ", "B"])
def test_a_sequence_must_end_where_the_text_ends(text: str) -> None:
    assert reasons(state(9, "b"), text, "") == [None, None]


@pytest.mark.parametrize("sequence", [".*[", "$", "\\d", "(a"])
def test_sequences_are_literal(sequence: str) -> None:
    assert reasons(state(9, sequence), "aaa 1", sequence) == [None, FinishReason.STOP_SEQUENCE]


def test_an_empty_sequence_never_stops() -> None:
    assert reasons(state(9, ""), "a", "b") == [None, None]


@given(st.lists(st.text("ab", max_size=3), max_size=400), st.text("ab", min_size=1, max_size=8))
def test_sequences_match_as_if_the_whole_text_were_kept(texts: list[str], sequence: str) -> None:
    stop, whole = state(10_000, sequence), ""
    for text in texts:
        whole += text
        expected = FinishReason.STOP_SEQUENCE if whole.endswith(sequence) else None
        assert stop.accept(5, text) is expected
        if expected:
            break


@pytest.mark.parametrize("length", [200, 250, 301, 1_000])
def test_long_sequences_match_in_long_texts(length: int) -> None:
    sequence = "".join(map(chr, range(0x4E00, 0x4E00 + length)))
    stop = state(10_000, sequence)
    found = reasons(stop, *("x" * 700), *sequence)
    assert found[-1] is FinishReason.STOP_SEQUENCE
    assert all(reason is None for reason, _ in pairwise(found))
