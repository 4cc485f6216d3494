"""What a model thinks before it answers: between which marks. Knows nothing of calls."""

from dataclasses import dataclass

from text_generation_router.chat.events import Reasoning
from text_generation_router.chat.formats.source import Source, Steps


@dataclass(frozen=True, slots=True)
class Marks:
    """Around reasoning. tokens: of which of them a tokenizer may have made special tokens."""

    begin: str
    end: str
    tokens: frozenset[str] = frozenset()

    @property
    def special(self) -> frozenset[str]:
        """The special tokens that are read."""
        return self.tokens or frozenset({self.begin, self.end})

    def opened_by(self, prompt: str) -> bool:
        """Whether the answer to a prompt begins within reasoning."""
        return prompt.rstrip().endswith(self.begin.rstrip())

    def read(self, source: Source, opened: bool) -> Steps[None]:
        """The reasoning that an answer begins with, if it does, and the white space around it.

        opened: whether the prompt has its first mark.
        """
        if not (yield from source.ahead(self.begin)) and not opened:
            return
        yield from source.skip(self.begin)
        yield from source.pass_space()
        space, mark = yield from source.tell_until((self.end,), Reasoning, str.rstrip)
        source.take(space + (mark or ""))
        yield from source.pass_space()
