"""One pane of the demo: an answer as it comes, and how fast."""

from collections.abc import AsyncIterator, Callable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from text_generation_demo.asking import FAILURES


class Pane(VerticalScroll):
    """Shows what an adapter answers, or the model itself. clock: seconds."""

    DEFAULT_CSS = """
    Pane { border: round $primary; padding: 0 1; height: 1fr; }
    Pane.base { border: round $foreground 60%; }
    Pane.failed { border: round $error; }
    """

    def __init__(self, adapter: str | None, clock: Callable[[], float]) -> None:
        super().__init__(classes="adapted" if adapter else "base")
        self.adapter = adapter
        self.border_title = adapter or "the model itself"
        self.answer = ""
        self._clock = clock
        self._body = Static(markup=False)

    def compose(self) -> ComposeResult:
        """The text."""
        yield self._body

    async def show(self, pieces: AsyncIterator[str]) -> None:
        """Let an answer take the place of the last one, piece by piece."""
        self._begin()
        count, first = 0, 0.0
        try:
            async for piece in pieces:
                count, now = count + bool(piece), self._clock()
                first = first if count > 1 else now
                self._add(piece)
                if now > first:  # the first token's time is the prompt's
                    self.border_subtitle = f"{count} tokens, {(count - 1) / (now - first):.1f} tokens/s"
        except FAILURES as error:
            self.add_class("failed")
            self._add(f"\n{error}")

    def _begin(self) -> None:
        self.remove_class("failed")
        self.answer, self.border_subtitle = "", ""
        self._body.update("")

    def _add(self, piece: str) -> None:
        self.answer += piece
        self._body.update(self.answer)
        self.scroll_end(animate=False)
