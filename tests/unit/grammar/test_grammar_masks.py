"""Grammars over small vocabularies: what is allowed is exactly what can still lead to a match."""

import json
import random
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from text_generation_server.errors import GenerationError, InvalidRequest
from text_generation_server.grammar.compiler import REMEMBERED, GrammarCompiler
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.masks import MaskMaker
from text_generation_server.grammar.state import GrammarState
from text_generation_server.grammar.syntax import MAX_CHARACTERS

TOKENS = [b"a", b"b", b"c", b"ab", b"ba", b"abc", b"cc", b"", b"<pad>", b"<end>", b"<stop>"]
END, STOP = 9, 10
PADDED = 40
"""Logits of the model, more than the tokenizer has tokens."""


class Tokens:
    """The little that a grammar needs of a tokenizer."""

    def __init__(self, tokens: Sequence[bytes], eos: set[int], special: set[int]) -> None:
        self.tokens, self.eos_ids, self.special_ids = list(tokens), frozenset(eos), frozenset(special)

    def token_bytes(self) -> list[bytes]:
        return self.tokens


SMALL = Tokens(TOKENS, {END, STOP}, {8, END, STOP})
BYTES = Tokens([bytes([value]) for value in range(256)] + [b"</s>"], {256}, {256})


class Follower:
    """One sequence with a grammar: `allowed` now, and `take` a token."""

    def __init__(self, kind: GrammarType, text: str, tokenizer: Tokens = SMALL, vocab_size: int = PADDED) -> None:
        self.state = GrammarState(GrammarCompiler(tokenizer, vocab_size).start(kind, text))
        self.maker = MaskMaker(vocab_size)
        self.vocab_size = vocab_size

    def allowed(self) -> set[int]:
        (mask,) = self.maker.start([self.state]).result()
        return bits(mask)

    def take(self, token: int) -> None:
        self.state.newest = lambda: token


def bits(mask: np.ndarray) -> set[int]:
    return set(np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0].tolist())


letters = st.sampled_from("abc")
languages = st.recursive(
    letters.map(lambda letter: (letter, frozenset({letter}))),
    lambda part: st.one_of(
        st.tuples(part, part).map(lambda p: (f"({p[0][0]}|{p[1][0]})", p[0][1] | p[1][1])),
        st.tuples(part, part).map(lambda p: (p[0][0] + p[1][0], frozenset(x + y for x in p[0][1] for y in p[1][1]))),
        part.map(lambda p: (f"({p[0]})?", p[1] | {""})),
    ),
    max_leaves=6,
)
"""A regular expression and the words it matches, built side by side."""


@settings(max_examples=120, deadline=None)
@given(languages, st.randoms(use_true_random=False))
def test_a_regex_allows_exactly_what_leads_to_a_match(language: tuple[str, frozenset[str]], rng: random.Random) -> None:
    pattern, words = language
    follower, said = Follower(GrammarType.REGEX, pattern), b""
    while True:
        lead = {
            token
            for token, text in enumerate(TOKENS[:7])
            if any(word.encode().startswith(said + text) for word in words)
        }
        ends = {END, STOP} if said.decode() in words else set()
        assert follower.allowed() == lead | ends
        token = rng.choice(sorted(lead | ends))
        follower.take(token)
        if token in ends:
            break
        said += TOKENS[token]
    assert follower.allowed() == {END, STOP}
    assert follower.state.failure is None


SCHEMA = {
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "size": {"type": "integer", "minimum": 3, "maximum": 25},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 3},
        "inner": {"properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
    "required": ["name", "size", "tags"],
}


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_a_schema_lets_through_fits_it(rng: random.Random) -> None:
    follower, said = Follower(GrammarType.JSON, json.dumps(SCHEMA), BYTES, 257), bytearray()
    while (token := rng.choice(sorted(follower.allowed()))) != 256:
        said.append(token)
        follower.take(token)
    value = json.loads(said)
    assert set(value) - {"inner"} == {"name", "size", "tags"}
    assert len(value["name"]) <= 6 and 3 <= value["size"] <= 25
    assert 1 <= len(value["tags"]) <= 3 and set(value["tags"]) <= {"x", "y"}
    assert isinstance(value.get("inner", {"on": True}), dict) and set(value.get("inner", {"on": True})) == {"on"}


def test_schemas_that_say_so_are_open() -> None:
    follower = Follower(GrammarType.JSON, '{"properties": {}, "additionalProperties": {"type": "integer"}}', BYTES, 257)
    for token in b'{"more": 7}':
        assert token in follower.allowed()
        follower.take(token)
    assert follower.allowed() == {256}


@pytest.mark.parametrize("pattern", ["", "(?:)", "^$", "()"])
def test_an_empty_pattern_is_the_empty_answer(pattern: str) -> None:
    assert Follower(GrammarType.REGEX, pattern).allowed() == {END, STOP}


@pytest.mark.parametrize("pattern", ["^abc$", "abc", "(?:abc)", "abc$"])
def test_anchors_change_nothing(pattern: str) -> None:
    follower = Follower(GrammarType.REGEX, pattern)
    assert follower.allowed() == {0, 3, 5}
    follower.take(5)
    assert follower.allowed() == {END, STOP}


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (GrammarType.REGEX, "(a|b", "unclosed group"),
        (GrammarType.REGEX, "(?=a)b", "look-around"),
        (GrammarType.REGEX, "(" * 3000, ""),
        (GrammarType.JSON, "{", "no JSON"),
        (GrammarType.JSON, "[1]", "a JSON list"),
        (GrammarType.JSON, '{"type": "nothing"}', "nothing"),
        (GrammarType.JSON, '{"properties": {"a": {"$ref": "#/nowhere"}}}', "nowhere"),
        (GrammarType.JSON, '{"type": "string", "not": {"const": "a"}}', "not"),
        (GrammarType.JSON, '{"anyOf": [' * 900 + "1" + "]}" * 900, "too deeply"),
        (GrammarType.JSON, '{"anyOf": [' * 200 + "{}" + "]}" * 200, "recursion limit"),
        (GrammarType.REGEX, "a" * (MAX_CHARACTERS + 1), "expected at most"),
        (GrammarType.NONE, "a", "grammar_type NONE"),
    ],
)
def test_a_bad_grammar_is_a_failure_that_masks_nothing(kind: GrammarType, text: str, reason: str) -> None:
    follower = Follower(kind, text)
    assert follower.allowed() >= set(range(PADDED))
    assert isinstance(follower.state.failure, InvalidRequest)
    assert "grammar" in str(follower.state.failure) and reason in str(follower.state.failure)
    assert "<state>" not in str(follower.state.failure)
    follower.take(3)
    assert follower.allowed() >= set(range(PADDED))


def test_a_token_that_was_not_allowed_is_a_failure() -> None:
    follower = Follower(GrammarType.REGEX, "abc")
    follower.allowed()
    follower.take(2)
    follower.allowed()
    assert follower.state.failure is not None


def test_whatever_the_library_throws_is_a_failure_of_the_grammar() -> None:
    compiled = Future[LLMatcher]()
    compiled.set_exception(BaseException("panic"))
    state = GrammarState(compiled)
    assert bits(MaskMaker(PADDED).start([state]).result()[0]) >= set(range(PADDED))
    assert "panic" in str(state.failure)


def test_without_an_end_there_are_no_grammars() -> None:
    follower = Follower(GrammarType.REGEX, "abc", Tokens(TOKENS, set(), set()))
    follower.allowed()
    assert "no end-of-sequence token" in str(follower.state.failure)


def test_tokens_beyond_the_logits_are_left_out() -> None:
    follower = Follower(GrammarType.REGEX, "abc", Tokens(TOKENS, {4, END}, {4, END}), vocab_size=6)
    assert follower.allowed() == {0, 3, 5}
    follower.take(5)
    assert follower.allowed() == {4}


def test_special_tokens_are_no_text() -> None:
    follower = Follower(GrammarType.REGEX, "abc", Tokens([b"a", b"a", b"ab", b"</s>"], {3}, {1, 3}))
    assert follower.allowed() == {0, 2}


def test_rows_with_the_same_grammar_move_apart() -> None:
    compiler, maker = GrammarCompiler(SMALL, PADDED), MaskMaker(PADDED)
    states = [GrammarState(compiler.start(GrammarType.REGEX, "ab|c")) for _ in range(3)]
    assert [bits(mask) for mask in maker.start(states).result()] == [{0, 2, 3}] * 3
    for state, token in zip(states, (0, 2, 3), strict=True):
        state.newest = lambda token=token: token
    assert [bits(mask) for mask in maker.start([states[2], states[0], states[1]]).result()] == [
        {END, STOP},
        {1},
        {END, STOP},
    ]


def test_masks_wait_for_the_tokens_of_the_step_before() -> None:
    follower, token = Follower(GrammarType.REGEX, "ab|cc"), Future[int]()
    follower.allowed()
    follower.state.newest = token.result
    masks = follower.maker.start([follower.state])
    follower.state.newest = None  # the next launch sets another: this step keeps its own
    assert not masks.done()
    token.set_result(2)
    assert bits(masks.result()[0]) == {2}


def test_a_failed_step_fails_the_masks_behind_it() -> None:
    follower, token = Follower(GrammarType.REGEX, "ab"), Future[int]()
    follower.allowed()
    follower.state.newest = token.result
    masks = follower.maker.start([follower.state])
    token.set_exception(GenerationError("the step failed"))
    with pytest.raises(GenerationError, match="the step failed"):
        masks.result()


def test_grammars_are_compiled_once_and_the_oldest_forgotten() -> None:
    compiler = GrammarCompiler(SMALL, PADDED)
    first = compiler.start(GrammarType.REGEX, "a")
    assert compiler.start(GrammarType.REGEX, "a") is first
    assert compiler.start(GrammarType.JSON, "a") is not first
    for number in range(REMEMBERED + 10):
        compiler.start(GrammarType.REGEX, "b" * (number + 1))
        compiler.start(GrammarType.REGEX, "a")  # used last, so kept
    assert compiler.start(GrammarType.REGEX, "a") is first
    for number in range(REMEMBERED):
        compiler.start(GrammarType.REGEX, "c" * (number + 1))
    assert compiler.start(GrammarType.REGEX, "a") is not first


UNFOLLOWABLE = [
    (GrammarType.JSON, json.dumps({"properties": {f"p{i}": {"type": "null"} for i in range(600)}}), "Current row"),
    (GrammarType.JSON, '{"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}', "NoExtensionBias"),
]


@pytest.mark.parametrize(("kind", "text", "problem"), UNFOLLOWABLE, ids=["wide", "circular"])
def test_a_trial_finds_what_compiles_but_cannot_be_followed(kind, text, problem) -> None:
    assert GrammarCompiler(BYTES, 257).start(kind, text).result()
    with pytest.raises(InvalidRequest, match=problem):
        GrammarCompiler(BYTES, 257, trial_tokens=32).start(kind, text).result()


@pytest.mark.parametrize("text", ["ab", "a*", r"\s*"])
def test_a_trial_lets_pass_what_ends_or_goes_on_for_ever(text) -> None:
    trying = GrammarCompiler(BYTES, 257, trial_tokens=32)
    assert trying.start(GrammarType.REGEX, text).result()
