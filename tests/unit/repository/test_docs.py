"""What documents and comments say of the tree is so: what they cite and name exists, down to headings and members."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = (
    "benchmark",
    "clients",
    "demo",
    "docs",
    "launcher",
    "measurements",
    "proto",
    "requirements",
    "router",
    "server",
    "tests",
)
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        *ROOT.glob("*.*"),
        ROOT / "Makefile",
        *(path for name in FOLDERS for path in (ROOT / name).rglob("*.*")),
    )
    if path.is_file()
}
PLACES = [*FILES, *{f"{parent.as_posix()}/" for place in FILES for parent in Path(place).parents}]
TEXTS = {place: path.read_text() for place, path in FILES.items() if path.suffix in {".py", ".md", ".proto", ".toml"}}
DOCUMENTS = [place for place in TEXTS if place.endswith(".md")]

CITED = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")
LINKED = re.compile(r"\]\(([^):\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
NAMED = re.compile(r"([^\s:]*)(?:::(\w+))?")
FILE_LIKE = re.compile(r".+\.(py|md|proto|toml|png)|[^\W\d][^:]*/.*")
OTHERS = re.compile(r"/|modeling_|.*(\bx\.py|<\w+>\.py)$")
"""Routes and absolute paths, files of transformers, and places for a file to come."""
SECTION = "\N{SECTION SIGN}"


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_nowhere(citation: str, folder: str = "") -> bool:
    """Whether a file, seen from a folder, or the heading behind its `#` does not exist."""
    name, _, anchor = citation.partition("#")
    path = (ROOT / folder / name).resolve()
    return not path.exists() or bool(anchor and anchor not in anchors(path.read_text()))


def found(name: str) -> list[str]:
    """Files and folders that may be meant: `...` stands for any folders, `*` for a name, and `.py` may be left out."""
    pattern = re.escape(name).replace(re.escape("..."), ".*").replace(re.escape("*"), "[^/]*")
    pattern = re.sub(r"\\{(.*)\\}", lambda names: f"({names[1].replace(',', '|')})", pattern)
    whole = re.compile(f"(.*/)?{pattern}(.py)?")
    return [place for place in PLACES if whole.fullmatch(place)]


def defines(place: str, member: str | None) -> bool:
    """Whether a file has this function, class or constant; anything is said to have none."""
    return not member or bool(re.search(rf"(def|class) {member}\b|^{member}\b", TEXTS[place], re.MULTILINE))


def misnamed(text: str) -> Iterator[str]:
    """Names in backquotes of files that do not exist, or do not have the member behind `::`."""
    last = ""
    for quoted in QUOTED.findall(FENCED.sub("", text)):
        name, member = NAMED.match(quoted).groups()
        if name and not FILE_LIKE.fullmatch(name):
            continue
        last = name or last
        if last and not OTHERS.match(last) and not any(defines(place, member) for place in found(last)):
            yield quoted


def test_every_file_that_a_text_names_exists():
    assert [f"{place}: {name}" for place, text in TEXTS.items() for name in misnamed(text)] == []


@pytest.mark.parametrize("place", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(place):
    here = Path(place)
    links = [
        here.name + link if link.startswith("#") else link for link in LINKED.findall(FENCED.sub("", TEXTS[place]))
    ]
    assert [link for link in links if leads_nowhere(link, here.parent)] == []


def test_every_citation_of_a_document_leads_somewhere():
    broken = {
        f"{place}: {cited}" for place, text in TEXTS.items() for cited in CITED.findall(text) if leads_nowhere(cited)
    }
    assert broken == set()


def test_sections_are_cited_of_what_everybody_can_read():
    sentences = {place: re.split(r"(?<=\.)\s", text) for place, text in TEXTS.items() if SECTION in text}
    private = [
        f"{place}: {sentence}"
        for place, those in sentences.items()
        for sentence in those
        if SECTION in sentence and not re.search(r"arXiv|RFC", sentence)
    ]
    assert private == []


@pytest.mark.parametrize("place", DOCUMENTS)
def test_every_target_of_make_that_a_document_names_exists(place):
    named = {quoted.split()[1] for quoted in QUOTED.findall(TEXTS[place]) if re.match(r"make \w", quoted)}
    assert named <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_what_does_not_exist_is_noticed():
    assert leads_nowhere("docs/protocol.md#" + "nowhere") and leads_nowhere("docs/" + "nothing.md")
    assert not leads_nowhere("docs/protocol.md#faults") and not leads_nowhere("protocol.md#faults", "docs")
    wrong = ["cache/nothing.py", "cache/tags.py::Nothing", "::nothing", "tests/nowhere/"]
    right = ["cache/tags.py::SlotTags", "::PrefixTags", "router/.../queue.py", "tests/unit/", "--flag", "/a/route"]
    assert list(misnamed(" ".join(f"`{name}`" for name in [*right, *wrong]))) == wrong
