"""docs/models.md says what the cases say, and every architecture has a case."""

from pathlib import Path

from oracles.models_page import page
from oracles.table import CASES
from text_generation_server.architectures.registry import ARCHITECTURES

PAGE = Path(__file__).parents[2] / "docs/models.md"


def test_the_page_is_made_from_the_cases():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_architecture_has_a_case():
    tested = {case.model_type if case.written is None else case.written["model_type"] for case in CASES}
    older_names = {"RefinedWeb", "RefinedWebModel"}
    assert set(ARCHITECTURES) - older_names == tested


def test_names_of_cases_are_unique_and_rows_lie_together():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    rows = [case.row for case in CASES]
    starts = [row for row, before in zip(rows, [None, *rows], strict=False) if row != before]
    assert len(set(starts)) == len(starts)
