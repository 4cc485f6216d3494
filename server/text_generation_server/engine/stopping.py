"""Decides after each token whether a generation has ended, by two rules that share nothing.

`IdRule` looks at ids alone, so the thread that launches steps can run it. `TextRule` looks at the text that the ids
make and may run anywhere after. Knows nothing of batches or devices.
"""

from text_generation_server.engine.detokenizer import IncrementalText
from text_generation_server.engine.types import FinishReason, StoppingParams


class IdRule:
    """What ids decide: the budget, which comes before the end tokens (docs/protocol.md#stopping).

    `generated` counts all tokens, those before this stay included. `ends`: the tokens that end it; `untold`: those of
    them that are no part of the text. `stay_over`: there is no room for more now, but the request may be resumed.
    """

    def __init__(self, stopping: StoppingParams, eos_ids: frozenset[int], generated: int = 0) -> None:
        self.generated = generated
        self._room = generated + stopping.max_new_tokens
        self._resumable = stopping.resumable
        self.untold = frozenset(stopping.stop_token_ids)
        self.ends = self.untold if stopping.ignore_eos else self.untold | eos_ids

    def accept(self, token_id: int) -> FinishReason | None:
        """Count a token; say why the generation ends with it, if it does."""
        self.generated += 1
        if self.generated >= self._room and not self._resumable:
            return FinishReason.LENGTH
        return FinishReason.EOS_TOKEN if token_id in self.ends else None

    @property
    def stay_over(self) -> bool:
        return self._resumable and self.generated >= self._room


class TextRule:
    """The text of one generation, which nothing follows once it contains a stop sequence, taken literally.

    Characters count once they are complete, also those that the text holds back for an unfinished one behind them.
    What the next `least` tokens complete does not count. Work and memory a token depend on the longest stop sequence,
    not on the text so far.
    """

    def __init__(self, text: IncrementalText, sequences: tuple[str, ...], least: int = 0) -> None:
        self.stopped = False
        self._early = least
        self._text = text
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._kept = max(map(len, self._sequences), default=1) - 1
        self._tail = text.end(self._kept)  # the end of the text so far: what a stop sequence may have begun in
        self._surplus = ""  # what the last token says after the stop sequence

    def append(self, token_id: int) -> str:
        """The characters that `token_id` completes, up to and with the stop sequence that is `stopped` by."""
        text = self._text.append(token_id)
        if not self._sequences:
            return text
        begun = len(self._tail)
        seen = self._tail + text + self._text.held
        self._early -= 1
        end = None if self._early >= 0 else self._end_of_match(seen, begun)
        if end is not None:
            self.stopped, self._surplus = True, seen[end:]
            return seen[begun:end]
        seen = self._tail + text
        self._tail = seen[max(len(seen) - self._kept, 0) :]
        return text

    def rest(self) -> str:
        """The complete characters that are still held back, for the last token to bring."""
        return "" if self.stopped else self._text.held

    def generated_text(self) -> str:
        """All that was generated, special tokens left out: the texts of the tokens with `rest`."""
        return self._text.generated_text(self._surplus)

    def _end_of_match(self, seen: str, begun: int) -> int | None:
        """Where the first stop sequence ends that ends behind `begun`."""
        found = ((seen.find(one, max(begun + 1 - len(one), 0)), len(one)) for one in self._sequences)
        return min((start + length for start, length in found if start >= 0), default=None)
