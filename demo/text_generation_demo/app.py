"""The terminal UI: a question goes to all panes at once, so that their answers share the server's steps."""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.widgets import Footer, Header, Input

from text_generation_demo.asking import Ask
from text_generation_demo.pane import Pane


class DemoApp(App[None]):
    """Two panes for each adapter: the model with it, and the model itself. clock: seconds, for tokens a second."""

    TITLE = "One model, one batch"
    ENABLE_COMMAND_PALETTE = False
    CSS = "Grid { grid-size: 2; grid-gutter: 0 1; height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "quit", "Leave")]

    def __init__(self, ask: Ask, adapters: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._ask = ask
        self.sub_title = f"the model beside {', '.join(adapters)}"
        self.panes = [Pane(name, clock) for name in chain.from_iterable((adapter, None) for adapter in adapters)]

    def compose(self) -> ComposeResult:
        """Panes, and a line for the question."""
        yield Header(icon="")
        yield Grid(*self.panes)
        yield Input(placeholder="Ask something, and press Enter")
        yield Footer()

    def on_mount(self) -> None:
        """Type at once."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask what was typed."""
        if question := event.value.strip():
            event.input.clear()
            self.answer(question)

    @work(exclusive=True)
    async def answer(self, question: str) -> None:
        """Stream into all panes; a question that is still being answered is given up."""
        self.sub_title = question
        await asyncio.gather(*(pane.show(self._ask(question, pane.adapter)) for pane in self.panes))
