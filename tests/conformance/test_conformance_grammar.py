"""Regular expressions, JSON schemas, bad ones, in company (docs/conformance.md#grammars)."""

import json
import re

import pytest

from conformance.caller import EOS_TOKEN, batch_of, ids_of, refused
from conformance.made_tokenizers import EOS
from conformance.recitals import recite
from mocks.mock_model import MockModel, greedy_continuation

JSON_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }
)


def constrained(caller, request_id: int, text: str, grammar: str, kind: int, new: int = 60):
    parameters = {"grammar": grammar, "grammar_type": kind}
    return caller.request(request_id, text, new, parameters=parameters, ignore_eos=False)


def regex(caller, request_id: int, grammar: str, text: str = "hello", new: int = 60):
    return constrained(caller, request_id, text, grammar, caller.pb.GRAMMAR_TYPE_REGEX, new)


def text_of(generations) -> str:
    return generations[-1].generated_text.text


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c095_three_digits_then_the_end(shard, version):
    caller = shard.caller(version)
    answer = caller.answer(regex(caller, 1, r"\d{3}"))
    assert re.fullmatch(r"\d{3}", text_of(answer)) and ids_of(answer)[-1] == EOS
    assert answer[-1].generated_text.finish_reason == EOS_TOKEN


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c096_a_json_schema_is_obeyed(shard, version):
    caller = shard.caller(version)
    answer = caller.answer(constrained(caller, 1, "hello", JSON_SCHEMA, caller.pb.GRAMMAR_TYPE_JSON))
    value = json.loads(text_of(answer))
    assert value.keys() == {"ok", "n"} and isinstance(value["ok"], bool) and value["n"] in (1, 22)


@pytest.mark.parametrize(("kind", "grammar"), [(2, "(unclosed"), (1, '{"type": "nonsense"}'), (1, "{not json")])
def test_c097_a_bad_grammar_fails_alone(shard, kind, grammar):
    caller = shard.v3
    with refused():
        caller.run_out(caller.prefill(0, constrained(caller, 1, "hello", grammar, kind)))
    first = caller.prefill(1, caller.request(2, "steady", 6))
    step = caller.prefill(2, constrained(caller, 3, "hello", grammar, kind), caller.request(4, "mate", 4), cached=1)
    rest = caller.run_out(step)
    assert ids_of([*first.generations, *rest[2]]) == greedy_continuation(b"steady", 6, ignore_eos=True)
    assert ids_of(rest[4]) == greedy_continuation(b"mate", 4, ignore_eos=True)
    assert text_of(rest[3]) == rest[3][-1].generated_text.failure != "" and len(ids_of(rest[3])) == 1
    assert not rest[4][-1].generated_text.HasField("failure")
    shard.assert_idle()


def test_c098_a_grammar_stays_with_its_request(shard):
    caller = shard.v3
    caller.prefill(0, caller.request(1, "free", 9), regex(caller, 2, "[ab]{5}"), caller.request(3, "gone", 9))
    caller.prefill(1, regex(caller, 4, "[0-4]{6}"), caller.request(5, "free too", 9))
    step = caller.decode(1, 0)
    assert batch_of(step) == (1, [4, 5, 1, 2, 3], 5)
    caller.filter(1, [2, 5, 4, 1])
    rest = caller.run_out(caller.decode(1))
    assert re.fullmatch("[ab]{5}", text_of(rest[2])) and re.fullmatch("[0-4]{6}", text_of(rest[4]))
    assert ids_of(rest[1]) == greedy_continuation(b"free", 9, ignore_eos=True)[2:]
    assert ids_of(rest[5]) == greedy_continuation(b"free too", 9, ignore_eos=True)[2:]


def test_no_grammar_is_none_whatever_its_type(start):
    caller = start(model=MockModel(logits=recite)).v3
    request = constrained(caller, 1, "yes\x02", "", caller.pb.GRAMMAR_TYPE_JSON)
    assert text_of(caller.answer(request)) == "yes"
