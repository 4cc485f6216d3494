"""Logits for the mock model where a test must know what is generated: a script that it recites, or always the same."""

from collections.abc import Callable, Sequence

from mocks.mock_model import EOS, VOCAB_SIZE

CUE = 2
"""The byte in a prompt after which the model recites what stands before it."""

Logits = Callable[[Sequence[int]], list[float]]


def recite(tokens: Sequence[int]) -> list[float]:
    """The token of the script that is due: what the history holds before its first cue, then EOS, then `x` for ever."""
    history = list(tokens)
    script = [*history[: history.index(CUE)], EOS] if CUE in history else []
    due = len(history) - len(script) if script else 0
    token = script[due] if due < len(script) else ord("x")
    return logits_of({token: 20.0})


def always(scores: dict[int, float]) -> Logits:
    """The same scores after every history, others being far below."""
    row = logits_of(scores)
    return lambda tokens: row


def logits_of(scores: dict[int, float]) -> list[float]:
    """A row of logits with these scores; all others differ and are far below."""
    return [scores.get(token, -20.0 - token / VOCAB_SIZE) for token in range(VOCAB_SIZE)]
