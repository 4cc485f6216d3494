"""Every case of docs/conformance.md has a test that bears its number, and no test has another."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/conformance.md"


def test_every_case_has_a_test():
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_conformance_*.py")]
    names = [name for source in sources for name in re.findall(r"^def (test_c\d{3}\w*)", source, re.MULTILINE)]
    tested = {int(number) for name in names for number in re.findall(r"_c(\d{3})(?=_)", name)}
    cases = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)]
    assert sorted(cases) == sorted(tested) == list(range(1, len(cases) + 1))
