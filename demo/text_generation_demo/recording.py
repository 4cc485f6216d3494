"""Records the demo: one question, answered without a terminal, as a picture."""

import asyncio
import re
from pathlib import Path

from textual.widgets import Input

from text_generation_demo.app import DemoApp

SIZE = (110, 26)
"""Columns and rows of the picture."""


def record(app: DemoApp, question: str, path: Path) -> None:
    """Ask, wait for all answers, and write what a terminal would show, as SVG."""
    path.write_text(_without_fonts(asyncio.run(_asked(app, question))) + "\n")


async def _asked(app: DemoApp, question: str) -> str:
    async with app.run_test(size=SIZE) as pilot:
        app.query_one(Input).value = question
        await pilot.press("enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        return app.export_screenshot(title="text-generation-demo")


def _without_fonts(picture: str) -> str:
    """Fonts are of who looks at it: none is fetched from anywhere."""
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL).replace("Fira Code", "monospace").rstrip()
