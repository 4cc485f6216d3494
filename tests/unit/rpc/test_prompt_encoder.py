"""Prompts to ids, many at once: each as its router means it, and none the worse for another that cannot be encoded."""

from text_generation_server.errors import InvalidRequest
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.wire import EncodedPrompt, Prompt


class Words:
    """Ids are lengths of words, after 0 where special tokens are wanted; knows no Greek. Counts its calls."""

    def __init__(self):
        self.calls = 0

    def encode_all(self, texts, add_special_tokens):
        self.calls += 1
        if not all(text.isascii() for text, _ in texts):
            raise RuntimeError("Greek")
        return [[0] * add_special_tokens + [*map(len, text.split())][-truncate:] for text, truncate in texts]


def encoded(*prompts, always_special=False):
    tokenizer = Words()
    encode = PromptEncoder(tokenizer)
    encode.always_special = always_special
    found = encode([Prompt(*prompt) for prompt in prompts])
    return [one.ids if isinstance(one, EncodedPrompt) else one for one in found], tokenizer.calls


def test_prompts_of_one_kind_are_encoded_together():
    assert encoded(("a bc", 0, True), ("abc d", 1, True)) == ([(0, 1, 2), (0, 1)], 1)


def test_each_gets_special_tokens_only_where_they_are_wanted():
    assert encoded(("a", 0, True), ("b", 0, False))[0] == [(0, 1), (1,)]
    assert encoded(("a", 0, True), ("b", 0, False), always_special=True) == ([(0, 1), (0, 1)], 1)


def test_one_that_cannot_be_encoded_leaves_the_others_as_they_are():
    (first, failed, empty, last), _ = encoded(("a", 0, False), ("αβ", 0, False), ("", 0, False), ("bc", 0, False))
    assert (first, last) == ((1,), (2,))
    assert isinstance(failed, InvalidRequest) and str(failed) == "the prompt 'αβ' cannot be tokenised: Greek"
    assert isinstance(empty, InvalidRequest) and str(empty) == "the prompt '' has no tokens, expected at least one"


def test_no_prompts_ask_nothing():
    assert encoded() == ([], 0)
