"""Generates the protocol's Python stubs, or with `--check` compares them with the committed ones.

Each proto package is a package of its own in text_generation_protocol; what lies beside these is written by hand.

The output is the same whichever grpcio-tools (1.71 or later) makes it: what its releases write differently is settled
here, and the version stamps are lowered to the oldest grpcio and protobuf that the stubs are known to work with. Each
version of the protocol has its own file name in the descriptor pool, so both load into one process.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet, ServiceDescriptorProto
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PACKAGE = "text_generation_protocol"
SOURCES = (
    ("v2", HERE / "generate.proto"),
    ("v3", HERE / "v3" / "generate.proto"),
    ("kvrun_v1", HERE / "kvrun" / "adapters.proto"),
    ("kvrun_v1", HERE / "kvrun" / "steps.proto"),
)
OLDEST_GRPC = "1.71.0"
OLDEST_PROTOBUF = "5.29.0"

SPELLINGS = (
    (r"(# Protobuf Python Version: ).*", rf"\g<1>{OLDEST_PROTOBUF}"),
    (r"(Domain\.PUBLIC,\n)(    \d+,\n){3}", r"\1" + "".join(f"    {part},\n" for part in OLDEST_PROTOBUF.split("."))),
    (r"(GRPC_GENERATED_VERSION = ').*'", rf"\g<1>{OLDEST_GRPC}'"),
    (r"\+ f' but the", "+ ' but the"),
    (r"^(class \w+)\(object\):", r"\1:"),
    (r": bool = \.\.\.", ": _Optional[bool] = ..."),
    (r"^from typing import ClassVar as _ClassVar, (Iterable as .*), (Optional as .*)",
     r"from collections.abc import \1\nfrom typing import ClassVar as _ClassVar, \2"),
)  # fmt: skip
"""What differs between releases of the compiler: a pattern, and what is written for it here."""

STUB_TYPES = '''\
"""Types of {stem}_pb2_grpc, as seen from an asyncio channel."""

{imports}

from {module} import {stem}_pb2 as pb

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

{kinds}class {service}Stub:
    def __init__(self, channel: object) -> None: ...
{calls}
def add_{service}Servicer_to_server(servicer: object, server: object) -> None: ...
'''

UNARY = {
    "imports": """\
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar""",
    "kinds": """\
class _Call(Protocol[_Request, _Response]):
    def __call__(
        self, request: _Request, *, timeout: float | None = ..., metadata: Sequence[tuple[str, str]] | None = ...
    ) -> Awaitable[_Response]: ...

""",
}
"""What the types of a service need whose calls have one answer each."""

STREAM = {
    "imports": """\
from collections.abc import AsyncIterable
from typing import Protocol, TypeVar""",
    "kinds": """\
class _Answers(Protocol[_Response]):
    async def read(self) -> _Response | object: ...

class _Call(Protocol[_Request, _Response]):
    def __call__(self, requests: AsyncIterable[_Request]) -> _Answers[_Response]: ...

""",
}
"""The same of one whose calls are streams both ways."""


def generate(out: Path) -> None:
    """Write the packages under `out`/text_generation_protocol."""
    for name, source in SOURCES:
        descriptors = out / f"{name}.bin"
        package = out / PACKAGE / name
        run_protoc(name, source, out, descriptors)
        described = write_stub_types(name, source, package, descriptors)
        descriptors.unlink()
        for file in sorted(package.glob("*.py*")):
            file.write_text(settled(file.read_text()))
        (package / "__init__.py").write_text(f'"""Generated stubs of the protocol\'s package {described}."""\n')


def run_protoc(name: str, source: Path, out: Path, descriptors: Path) -> None:
    """Raises RuntimeError when the compiler refuses; it has said why on stderr."""
    places = {PACKAGE + "/" + known: file.parent for known, file in SOURCES}
    arguments = [f"-I{place}={folder}" for place, folder in places.items()]
    arguments.append(f"--descriptor_set_out={descriptors}")
    arguments += [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *arguments, f"{PACKAGE}/{name}/{source.name}"]):
        raise RuntimeError(f"protoc failed on {source}")


def settled(text: str) -> str:
    """The compiler's output without what depends on its release."""
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def write_stub_types(name: str, source: Path, package: Path, descriptors: Path) -> str:
    """Type the client stub: the compiler leaves it untyped. Returns the package that the file declares."""
    (file,) = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    (service,) = file.service
    module, stem = f"{PACKAGE}.{name}", source.stem
    needs = STREAM if any(method.server_streaming for method in service.method) else UNARY
    types = STUB_TYPES.format(module=module, stem=stem, service=service.name, calls=call_types(service), **needs)
    (package / f"{stem}_pb2_grpc.pyi").write_text(types)
    return file.package


def call_types(service: ServiceDescriptorProto) -> str:
    """One annotated attribute a method."""
    names = ((m.name, m.input_type.rpartition(".")[2], m.output_type.rpartition(".")[2]) for m in service.method)
    return "".join(f"    {name}: _Call[pb.{request}, pb.{response}]\n" for name, request, response in names)


def differences(committed: Path) -> list[str]:
    """Files that are missing, superfluous or different from what the .proto files give."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = contents(Path(folder) / PACKAGE)
    present = contents(committed / PACKAGE)
    return sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))


def contents(package: Path) -> dict[str, str]:
    """Text of each generated file, by its path in the package."""
    files = (file for name, _ in SOURCES for file in (package / name).rglob("*") if file.is_file())
    return {file.relative_to(package).as_posix(): file.read_text() for file in files if "__pycache__" not in file.parts}


def main() -> int:
    """Generate, or with --check say what is out of date; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the stubs are out of date")
    if not parser.parse_args().check:
        generate(HERE / "python")
        return 0
    stale = differences(HERE / "python")
    for name in stale:
        print(f"{PACKAGE}/{name} is not what proto/ gives; run: make proto", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
