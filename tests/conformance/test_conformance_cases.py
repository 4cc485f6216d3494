"""Every case of the protocol's checklist has a test that bears its number."""

import re
from pathlib import Path

CASES = range(1, 122)


def test_every_case_has_a_test():
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_conformance_*.py")]
    names = [name for source in sources for name in re.findall(r"^def (test_c\d{3}\w*)", source, re.MULTILINE)]
    found = {int(number) for name in names for number in re.findall(r"_c(\d{3})(?=_)", name)}
    assert sorted(found) == list(CASES)
