"""Decides after each token whether a generation has ended. Knows nothing of batches, devices or how texts are made."""

from text_generation_server.engine.types import FinishReason, StoppingParams

_KEPT_CHARACTERS = 200
_TRIM_AFTER = 100


class StopState:
    """One request's stop rules and how far it has come: `generated` counts its tokens, the last one included."""

    def __init__(self, stopping: StoppingParams, eos_ids: frozenset[int]) -> None:
        self.generated = 0
        self._max_new_tokens = stopping.max_new_tokens
        self._eos_ids: frozenset[int] = frozenset() if stopping.ignore_eos else eos_ids
        self._sequences = tuple(sequence for sequence in stopping.stop_sequences if sequence)
        self._kept = max(_KEPT_CHARACTERS, max(map(len, self._sequences), default=0))
        self._tail = ""

    def accept(self, token_id: int, text: str) -> FinishReason | None:
        """Count a token and its text ("" while bytes are held back); say why the generation ends with it, if it does.

        Length comes before end-of-sequence, which comes before stop sequences (protocol §6.7).
        """
        self.generated += 1
        if self.generated >= self._max_new_tokens:
            return FinishReason.LENGTH
        if token_id in self._eos_ids:
            return FinishReason.EOS_TOKEN
        return FinishReason.STOP_SEQUENCE if self._stopped(text) else None

    def _stopped(self, text: str) -> bool:
        """Whether the generated text now ends with a stop sequence, taken literally (protocol §7.6).

        A sequence that ends inside a token's text does not match, and a newline after it makes no exception. Only the
        end of the text is kept: 200 to 300 characters, or more for a longer sequence.
        """
        if not self._sequences:
            return False
        self._tail += text
        if len(self._tail) > self._kept + _TRIM_AFTER:
            self._tail = self._tail[-self._kept :]
        return self._tail.endswith(self._sequences)
