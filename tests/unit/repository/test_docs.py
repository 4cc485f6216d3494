"""What the documents say of the tree is so: files that they name exist, and names within them; counts are right."""

import re
from pathlib import Path

import pytest

from text_generation_server.architectures.registry import ARCHITECTURES

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`([\w./-]*\w\.(?:py|md|proto|toml|txt))(?:::(\w+))?[^`]*`")
OTHERS = re.compile(r"^(/|docs\.|modeling_|tokenization_|configuration_|x\.py$|.*/x\.py$|\w+\.(py|txt)$|README\.md$)")
"""Files of model directories and other projects, a place for one to come, and bare names, which may be anybody's."""

FILES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in (
        "benchmark",
        "clients",
        "docs",
        "launcher",
        "measurements",
        "proto",
        "requirements",
        "router",
        "server",
        "tests",
    )
    for path in (ROOT / folder).rglob("*.*")
} | {path.name: path for path in ROOT.glob("*.*")}


def found(name: str) -> list[Path]:
    """Files that may be meant: `...` stands for any folders."""
    pattern = re.compile("(.*/)?" + re.escape(name).replace(re.escape("..."), ".*"))
    return [path for place, path in FILES.items() if pattern.fullmatch(place)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document):
    named = {match.groups() for match in NAMED.finditer(document.read_text())}
    missing = [
        f"{name}::{member}" if member else name
        for name, member in sorted(named, key=str)
        if not OTHERS.match(name) and not any(not member or member in path.read_text() for path in found(name))
    ]
    assert missing == []


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_the_count_of_architectures_is_that_of_the_registry(document):
    counts = re.findall(r"(\S+) architectures", (ROOT / document).read_text())
    assert str(len(ARCHITECTURES)) in counts
