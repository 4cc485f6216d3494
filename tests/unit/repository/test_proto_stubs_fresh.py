"""The committed stubs are what the .proto files give, and run on the versions their stamps promise."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[3] / "proto"


@pytest.fixture(scope="module")
def compiler():
    spec = importlib.util.spec_from_file_location("proto_compile", PROTO / "compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_stubs_are_fresh(compiler):
    assert compiler.differences(PROTO / "python") == [], "run: make proto"


def test_a_changed_stub_is_noticed(compiler, tmp_path):
    shutil.copytree(PROTO / "python", tmp_path / "python")
    stub = tmp_path / "python" / "text_generation_protocol" / "v3" / "generate_pb2.pyi"
    stub.write_text(stub.read_text().replace("block_size: int", "block_size: str"))
    assert compiler.differences(tmp_path / "python") == ["v3/generate_pb2.pyi"]


def test_a_superfluous_file_is_noticed(compiler, tmp_path):
    shutil.copytree(PROTO / "python", tmp_path / "python")
    (tmp_path / "python" / "text_generation_protocol" / "v3" / "more.py").touch()
    assert compiler.differences(tmp_path / "python") == ["v3/more.py"]


def test_stamps_are_the_oldest_served(compiler):
    for name, source in compiler.SOURCES:
        package = PROTO / "python" / compiler.PACKAGE / name
        messages, calls = ((package / f"{source.stem}_{kind}.py").read_text() for kind in ("pb2", "pb2_grpc"))
        stamp = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", messages)
        assert ".".join(stamp.groups()) == compiler.OLDEST_PROTOBUF
        assert f"GRPC_GENERATED_VERSION = '{compiler.OLDEST_GRPC}'" in calls
