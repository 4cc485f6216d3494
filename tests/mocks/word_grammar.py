"""Grammars of a few words over bytes, and what a greedy request with one must answer, found without any engine."""

from collections.abc import Collection, Sequence

from mocks.mock_model import EOS, VOCAB_SIZE, next_logits
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.sampling.params import SamplingParams

WORDS = (
    ("yes", "no"),
    ("314", "315", "31", "2718"),
    ("a", "ab", "abc", "abcd", "b"),
)


def word_grammar(words: Collection[str]) -> SamplingParams:
    """Greedy, and nothing but one of `words`."""
    return SamplingParams(grammar="|".join(words), grammar_type=GrammarType.REGEX)


def allowed_tokens(words: Collection[str], answer: Sequence[int]) -> set[int]:
    """What may come next: a byte that leads on to a word, the end behind a word, and only the end behind the end."""
    if EOS in answer:
        return {EOS}
    said = bytes(answer)
    left = [word.encode()[len(said) :] for word in words if word.encode().startswith(said)]
    return {rest[0] if rest else EOS for rest in left}


def word_continuation(words: Collection[str], prompt: Sequence[int], length: int) -> list[int]:
    """What a greedy request must answer."""
    answer: list[int] = []
    while len(answer) < length:
        logits = next_logits([*prompt, *answer])
        allowed = allowed_tokens(words, answer)
        answer.append(max((t for t in range(VOCAB_SIZE) if t in allowed), key=logits.__getitem__))
        if answer[-1] == EOS:
            break
    return answer
