"""The demo in a terminal that Textual plays: panes stream at once, fail alone, and end up in a picture."""

import asyncio
from contextlib import contextmanager
from itertools import count

import httpx
from textual.widgets import Input

from text_generation_demo import cli
from text_generation_demo.app import DemoApp
from text_generation_demo.recording import record

SAID = {None: ["A ", "[model]", "."], "pirate": ["Arr", "!"], "robot": ["BEEP"]}


class Answers:
    """Satisfies `Ask`. together: most questions that were being answered at a time. broken: who fails."""

    def __init__(self, broken=None):
        self.asked, self.together, self.broken, self._now = [], 0, broken, 0

    async def __call__(self, question, adapter):
        self.asked.append((question, adapter))
        self._now += 1
        for piece in SAID[adapter]:
            await asyncio.sleep(0)
            self.together = max(self.together, self._now)
            if adapter is not None and adapter == self.broken:
                raise httpx.ConnectError("nobody answers")
            yield piece
        self._now -= 1


def app_of(answers):
    ticks = count()
    return DemoApp(answers, ["pirate", "robot"], clock=lambda: next(ticks) / 10)


async def typed(app, pilot, question):
    app.query_one(Input).value = question
    await pilot.press("enter")
    await app.workers.wait_for_complete()
    await pilot.pause()


async def test_each_adapter_has_two_panes_that_stream_at_once():
    answers = Answers()
    app = app_of(answers)
    async with app.run_test(size=(100, 30)) as pilot:
        for question in ("hi?", "and now?"):
            await typed(app, pilot, question)
            assert [pane.answer for pane in app.panes] == ["Arr!", "A [model].", "BEEP", "A [model]."]
        await typed(app, pilot, "  ")
        panes = [(pane.border_title, *pane.border_subtitle.split()[:2]) for pane in app.panes]
    assert answers.asked == [
        (question, who) for question in ("hi?", "and now?") for who in ("pirate", None, "robot", None)
    ]
    assert answers.together == 4
    assert panes[:2] == [("pirate", "2", "tokens,"), ("the model itself", "3", "tokens,")]


async def test_a_pane_that_fails_says_why_and_stands_alone():
    app = app_of(Answers(broken="pirate"))
    async with app.run_test(size=(100, 30)) as pilot:
        await typed(app, pilot, "hi?")
        failed = [pane for pane in app.panes if pane.has_class("failed")]
        assert [(pane.adapter, pane.answer.strip()) for pane in failed] == [("pirate", "nobody answers")]
        assert app.panes[2].answer == "BEEP"


def test_an_answer_can_be_recorded_as_a_picture(tmp_path):
    record(app_of(Answers()), "What is a ship?", tmp_path / "demo.svg")
    picture = (tmp_path / "demo.svg").read_text().replace("&#160;", " ")
    for shown in ("Arr!", "BEEP", "A [model].", "tokens/s", "What", "ship?", "the model itself"):
        assert shown in picture, shown
    assert "url(http" not in picture and "@font-face" not in picture


def test_adapters_that_are_there_are_served_not_trained_again(tmp_path, monkeypatch):
    served = []

    @contextmanager
    def stub(model, adapters, log):
        served.append((model, adapters))
        yield "http://nowhere"

    monkeypatch.setattr(cli, "served", stub)
    monkeypatch.setattr(cli, "Server", lambda url, max_tokens: Answers())
    places = {name: tmp_path / name for name in ("pirate", "robot")}
    for place in places.values():
        place.mkdir()
        (place / "adapter_config.json").touch()
    shown = ["--adapters", "robot", "--record", str(tmp_path / "demo.svg")]
    cli.main(["--folder", str(tmp_path), *shown])
    assert served == [("smollm2", places)]
    cli.main(["--url", "http://elsewhere/", *shown])
    assert len(served) == 1 and "BEEP" in (tmp_path / "demo.svg").read_text()
