"""Truncation, partial characters, special tokens, stop rules, prompt tokens (docs/conformance.md#texts)."""

import math

import pytest

from conformance.caller import EOS_TOKEN, LENGTH, STOP_SEQUENCE, ids_of, texts_of
from conformance.made_tokenizers import BOS, EOS, byte_level, sentencepiece
from conformance.recitals import CUE, logits_of, recite
from mocks.mock_model import MockModel
from text_generation_server.tokenization.adapter import TokenizerAdapter

SAY = chr(CUE)
PROMPT = "".join(chr(ord("A") + i % 26) for i in range(50))


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def caller(request, start):
    """Speaks to a model that recites its prompt."""
    return start(model=MockModel(logits=recite), run_ahead=request.param).v3


def ended(generations):
    """Text, reason and number of tokens at the end."""
    assert not any(g.HasField("generated_text") for g in generations[:-1])
    end = generations[-1].generated_text
    return end.text, end.finish_reason, end.generated_tokens


def prompt_ids(caller, text: str, **changes) -> list[int]:
    (answer,) = caller.answer(caller.request(1, text, 1, prefill_logprobs=True, **changes))
    return list(answer.prefill_tokens.ids)


def test_c062_a_long_prompt_keeps_bos_and_its_end(caller):
    assert prompt_ids(caller, PROMPT, truncate=10, add_special_tokens=True) == [BOS, *PROMPT[-9:].encode()]
    assert prompt_ids(caller, PROMPT, truncate=10) == list(PROMPT[-10:].encode())


@pytest.mark.parametrize("truncate", [0, 51, 60, 2**31])
def test_c063_a_limit_beyond_the_prompt_changes_nothing(caller, truncate):
    ids = prompt_ids(caller, PROMPT, truncate=truncate, add_special_tokens=True)
    assert ids == [BOS, *PROMPT.encode()]


def test_c064_each_request_has_its_own_limit(start):
    caller = start(model=MockModel(logits=recite)).v2
    limits = {1: 5, 2: 50}
    requests = [caller.request(i, PROMPT, 1, truncate=limit, prefill_logprobs=True) for i, limit in limits.items()]
    first, second = caller.prefill(0, *requests).generations
    assert list(first.prefill_tokens.ids) == [BOS, *PROMPT[-4:].encode()]
    assert list(second.prefill_tokens.ids) == [BOS, *PROMPT[-49:].encode()]


def test_c065_a_character_of_several_tokens_comes_with_the_last(caller):
    answer = caller.answer(caller.request(1, f"a🙂é!{SAY}", 8))
    assert texts_of(answer) == ["a", "", "", "", "🙂", "", "é", "!"]
    assert ended(answer) == ("a🙂é!", LENGTH, 8)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_c066_an_unfinished_character_is_left_out(caller, cut):
    answer = caller.answer(caller.request(1, f"ab🙂{SAY}", 2 + cut))
    assert texts_of(answer) == ["a", "b"] + [""] * cut
    assert ended(answer) == ("ab", LENGTH, 2 + cut)


@pytest.fixture
def pieces(start, tmp_path):
    """Answers of a model that says given pieces of a SentencePiece vocabulary, whatever it is asked."""
    directory, vocabulary = sentencepiece(tmp_path)
    tokenizer = TokenizerAdapter.load(directory)

    def answer(prompt: str, said: list[str], **changes):
        length = len(tokenizer.encode(prompt))
        ids = [vocabulary[piece] for piece in said]
        model = MockModel(logits=lambda tokens: logits_of({ids[len(tokens) - length]: 20.0}))
        caller = start(model=model, tokenizer=tokenizer).v3
        return caller.answer(caller.request(1, prompt, len(said), add_special_tokens=True, **changes))

    return answer


def test_c067_a_leading_space_is_kept_once(pieces):
    answer = pieces("hello", ["▁world", "s", "▁day"])
    assert texts_of(answer) == [" world", "s", " day"]
    assert ended(answer)[0] == " worlds day"


@pytest.mark.parametrize("prompt", ["h", "the", "hello the day"])
def test_c068_a_prompt_of_few_tokens_has_the_same_texts(pieces, prompt):
    answer = pieces(prompt, ["▁world", "s", "▁the", "a"])
    assert texts_of(answer) == [" world", "s", " the", "a"]
    assert ended(answer)[0] == " worlds thea"


def test_c069_the_end_of_sequence_is_a_token_but_no_text(caller):
    answer = caller.answer(caller.request(1, f"bye{SAY}", 20, ignore_eos=False))
    assert texts_of(answer) == ["b", "y", "e", "</s>"] and ids_of(answer)[-1] == EOS
    assert [list(g.tokens.is_special) for g in answer] == [[False]] * 3 + [[True]]
    assert ended(answer) == ("bye", EOS_TOKEN, 4)


def test_c070_length_comes_before_the_end_of_sequence(caller):
    answer = caller.answer(caller.request(1, f"bye{SAY}", 4, ignore_eos=False))
    assert ids_of(answer)[-1] == EOS and ended(answer) == ("bye", LENGTH, 4)


def test_c071_the_end_of_sequence_may_be_ignored(caller):
    answer = caller.answer(caller.request(1, f"bye{SAY}", 7))
    assert texts_of(answer) == ["b", "y", "e", "</s>", "x", "x", "x"] and ended(answer) == ("byexxx", LENGTH, 7)


@pytest.mark.parametrize("end", ["y", "</s>"])
def test_c072_any_token_of_the_generation_config_ends(start, tmp_path, end):
    directory = byte_level(tmp_path)
    (directory / "generation_config.json").write_text(f'{{"eos_token_id": [{ord("y")}, {EOS}]}}')
    caller = start(model=MockModel(logits=recite), tokenizer=TokenizerAdapter.load(directory)).v3
    script = "bye" if end == "y" else "be"
    answer = caller.answer(caller.request(1, script + SAY, 20, ignore_eos=False))
    assert texts_of(answer)[-1] == end and ended(answer)[1] == EOS_TOKEN


def test_c073_a_stop_sequence_ends_the_text_and_stays_in_it(caller):
    answer = caller.answer(caller.request(1, f"what a foo is{SAY}", 20, stops=["foo"]))
    assert ended(answer) == ("what a foo", STOP_SEQUENCE, 10)


def test_c074_a_stop_sequence_within_a_token_cuts_its_text(pieces):
    answer = pieces("the", ["▁world", "▁day", "▁the"], stops=["d", "worlds", "dx", "s d"])
    assert texts_of(answer) == [" world"]
    assert ended(answer) == (" world", STOP_SEQUENCE, 1)
    answer = pieces("the", ["▁world", "▁day", "▁the"], stops=["rl", "orld", "ay"])
    assert texts_of(answer) == [" worl"] and ended(answer) == (" worl", STOP_SEQUENCE, 1)
    answer = pieces("the", ["▁world", "▁day", "▁the"], stops=["d d"])
    assert texts_of(answer) == [" world", " d"] and ended(answer) == (" world d", STOP_SEQUENCE, 2)


def test_a_stop_sequence_may_be_characters_of_several_tokens(caller):
    answer = caller.answer(caller.request(1, f"aé🙂🙃b{SAY}", 20, stops=["🙂🙃", "é🙃"]))
    assert ended(answer) == ("aé🙂🙃", STOP_SEQUENCE, 11)
    assert "".join(texts_of(answer)) == "aé🙂🙃"


def test_c075_a_stop_sequence_may_span_tokens(caller):
    answer = caller.answer(caller.request(1, f"abcdef{SAY}", 20, stops=["zzz", "bcd"]))
    assert ended(answer) == ("abcd", STOP_SEQUENCE, 4)


def test_c076_a_stop_sequence_is_no_pattern(caller):
    answer = caller.answer(caller.request(1, f"abc.*[d{SAY}", 20, stops=[".*["]))
    assert ended(answer) == ("abc.*[", STOP_SEQUENCE, 6)


def test_c077_the_prompt_does_not_stop_it(caller):
    answer = caller.answer(caller.request(1, f"a{SAY}foo", 6, stops=["foo"]))
    assert ended(answer)[1] == LENGTH


def test_stop_sequences_and_the_last_token(caller):
    answer = caller.answer(caller.request(1, f"foo{SAY}", 3, stops=["foo"]))
    assert ended(answer) == ("foo", LENGTH, 3)


def test_c078_prompt_tokens_come_with_the_first_token_only(caller):
    text = "né <x>"
    answer = caller.answer(caller.request(1, text, 3, prefill_logprobs=True, add_special_tokens=True))
    assert [g.HasField("prefill_tokens") for g in answer] == [True, False, False]
    scored = answer[0].prefill_tokens
    assert list(scored.ids) == [BOS, *text.encode()] and list(scored.is_special) == []
    assert list(scored.texts) == ["<s>", "n", "\ufffd", "\ufffd", " ", "<", "x", ">"]
    assert math.isnan(scored.logprobs[0]) and all(logprob <= 0 for logprob in scored.logprobs[1:])
    assert len(scored.logprobs) == len(scored.ids)


def test_c079_prompt_tokens_need_the_operators_consent(start):
    shard = start(model=MockModel(logits=recite), variables={"REQUEST_LOGPROBS": "0"})
    (answer,) = shard.v3.answer(shard.v3.request(1, "abc", 1, prefill_logprobs=True))
    assert not answer.HasField("prefill_tokens")
