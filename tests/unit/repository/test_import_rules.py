"""Who imports whom: the packages and floors that docs/architecture.md draws, checked on the source."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = {
    "server": ROOT / "server" / "text_generation_server",
    "launcher": ROOT / "launcher" / "text_generation_launcher",
    "router": ROOT / "router" / "text_generation_router",
    "benchmark": ROOT / "benchmark" / "text_generation_benchmark",
    "protocol": ROOT / "proto" / "python" / "text_generation_protocol",
    "demo": ROOT / "demo" / "text_generation_demo",
    "client": ROOT / "clients" / "python" / "text_generation",
}
SOURCES = [(name, path) for name, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]
each_source = pytest.mark.parametrize(("package", "path"), SOURCES, ids=lambda value: getattr(value, "name", value))

ONLY_PLACES = [
    (
        r"(grpc|grpc_\w+|google|text_generation_protocol)(\.|$)",
        r"protocol/|server/rpc/|router/shards/|benchmark/(client|messages)\.py",
    ),
    (r"opentelemetry(\.|$)", r"server/tracing\.py"),
    (r"torch\.distributed(\.|$)", r"server/distributed/"),
    (r"(flashinfer|triton)(\.|$)", r"server/attention/flashinfer(_modules)?\.py|server/kernels/"),
    (
        r"torch(\.|$)",
        r"server/(adapters|attention|cache|device|distributed|engine|kernels|layers|models|quantization|sampling|weights)/"
        r"|server/grammar/masks\.py|server/(placement|prepare|serve)\.py|demo/(teaching|training)\.py",
    ),
    (r"text_generation_server\.models\.(?!step)", r"server/(models/|(serve|prepare)\.py)"),
]
"""What is imported, and the only places that may (package/path, as a regular expression)."""


def imports(path: Path) -> Iterator[str]:
    """Every name that a file imports, with its module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floors() -> dict[str, int]:
    """The floor of each folder and module of the server, counted from the top."""
    (block,) = re.findall(r"^```floors\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [re.split(r"\s{3,}", line)[0].split() for line in block.splitlines()]
    return {name: floor for floor, names in enumerate(lines) for name in names}


def allowed_packages() -> dict[str, list[str]]:
    """What each package may import of the others, as beginnings of module names."""
    found = {}
    for package, told in re.findall(r"^\| `[a-z/]+` \| `(text_generation\w*)` \|.*\| (.*) ?\|$", PAGE, re.MULTILINE):
        whole, *parts = re.split(r"the (\w+)'s ", told)
        found[package] = re.findall(r"`(\w+)`", whole)
        for owner, listed in zip(parts[::2], parts[1::2], strict=True):
            found[package] += [f"text_generation_{owner}.{part}" for part in re.findall(r"`(\w+)`", listed)]
    return found


def folder_of(module: str) -> str | None:
    """The folder or file of a name of the server."""
    name = module.split(".")[1] if "." in module else ""
    if (PACKAGES["server"] / name).is_dir():
        return name or None
    return f"{name}.py" if (PACKAGES["server"] / f"{name}.py").exists() else None


def test_there_is_something_to_check():
    assert {name for name, _ in SOURCES} == set(PACKAGES)
    assert set(allowed_packages()) >= {path.name for path in PACKAGES.values()}


def test_every_folder_has_a_floor():
    here = {path.name for path in PACKAGES["server"].iterdir() if path.name[0] != "_"}
    assert set(floors()) == here


@each_source
def test_imports_go_down(package, path):
    if package != "server" or (path.parent == PACKAGES["server"] and path.name[0] == "_"):
        return
    floor, own = floors(), path.relative_to(PACKAGES["server"]).parts[0]
    for name in imports(path):
        target = folder_of(name) if name.startswith("text_generation_server.") else None
        if target is not None and target != own:
            assert floor[target] > floor[own], f"{own} imports {name}, which is not on a floor below"


@each_source
def test_packages_import_what_the_page_says(package, path):
    own = PACKAGES[package].name
    allowed = [own, *allowed_packages()[own]]
    for name in imports(path):
        if name.startswith("text_generation"):
            assert any(name == start or name.startswith(f"{start}.") for start in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package):
    folder = PACKAGES[package]
    names = {
        ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts)): path for path in folder.rglob("*.py")
    }
    graph = {
        module: {name if name in names else name.rpartition(".")[0] for name in imports(path)} & names.keys()
        for module, path in names.items()
    }
    assert list(TopologicalSorter(graph).static_order())


@each_source
def test_imports_stay_in_their_layer(package, path):
    place = f"{package}/{path.relative_to(PACKAGES[package])}"
    for name in imports(path):
        for pattern, allowed in ONLY_PLACES:
            assert not re.match(pattern, name) or re.match(allowed, place), f"{place} imports {name}"
        assert not re.match(r"text_generation_\w+\.cli(\.|$)", name) or path.name == "__main__.py"


@each_source
def test_the_environment_is_read_and_written_in_one_module_each(package, path):
    places = {"server": ("settings.py", "environment.py")}.get(package, ("settings.py",))
    if path.name not in places:
        assert not re.search(r"os\.environ|getenv\(", path.read_text()), f"{package}/{path.name} uses the environment"


def test_one_module_of_the_measurements_uses_the_environment():
    scripts = {path.name for path in (ROOT / "measurements").glob("*.py") if "os.environ" in path.read_text()}
    assert scripts == {"surroundings.py"}


@each_source
def test_every_module_says_what_it_is_for(package, path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{package}/{path.name} has no docstring"
