"""The layers of docs/architecture.md, checked on the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "server": ROOT / "server" / "text_generation_server",
    "launcher": ROOT / "launcher" / "text_generation_launcher",
    "router": ROOT / "router" / "text_generation_router",
    "benchmark": ROOT / "benchmark" / "text_generation_benchmark",
    "client": ROOT / "clients" / "python" / "text_generation",
}
SOURCES = [(name, path) for name, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]

RULES = [
    (
        r"(grpc|grpc_\w+|google|text_generation_protocol)(\.|$)",
        r"server/rpc/|router/shards\.py|benchmark/(client|messages)\.py",
    ),
    (r"torch\.distributed(\.|$)", r"server/distributed/"),
    (r"(flashinfer|triton)(\.|$)", r"server/attention/flashinfer(_modules)?\.py|server/kernels/"),
    (r"text_generation_(server|launcher|router|benchmark)\.cli(\.|$)", r"\w+/__main__\.py"),
    (r"torch(\.|$)", r"server/"),
    (r"text_generation_server\.models\.(?!step)", r"server/(models/|(serve|prepare)\.py)"),
]
"""What is imported, and the only places that may (package/path, as a regular expression)."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_check():
    assert {name for name, _ in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "name", value))
def test_imports_stay_in_their_layer(package, path):
    place = f"{package}/{path.relative_to(PACKAGES[package])}"
    for name in imports(path):
        for pattern, allowed in RULES:
            assert not re.match(pattern, name) or re.match(allowed, place), f"{place} imports {name}"


@pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "name", value))
def test_the_environment_is_read_in_settings_only(package, path):
    if path.name != "settings.py":
        assert not re.search(r"os\.environ|getenv\(", path.read_text()), f"{package}/{path.name} reads the environment"


@pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "name", value))
def test_every_module_says_what_it_is_for(package, path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{package}/{path.name} has no docstring"
