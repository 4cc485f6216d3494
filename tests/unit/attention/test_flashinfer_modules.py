"""Which of FlashInfer's modules a model needs, and what compiling them says; FlashInfer and compilers are played."""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from loguru import logger
from typer.testing import CliRunner

from text_generation_server import cli
from text_generation_server.attention import flashinfer, flashinfer_modules
from text_generation_server.attention.base import AttentionShape, AttentionVariant
from text_generation_server.attention.flashinfer_modules import compile_modules, embed_modules, modules_of
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.errors import StartError

PLAIN = (AttentionVariant(),)
HOPPER, AMPERE = (9, "0a"), (8, "0")
LLAMA = {
    "model_type": "llama", "vocab_size": 100, "hidden_size": 320, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
MAMBA = {"model_type": "mamba", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2}


class Spec:
    """A module of FlashInfer's, built by writing a file."""

    def __init__(self, folder, kind, arguments):
        self.kind, self.arguments = kind, arguments
        self.build_dir = folder / "cached_ops" / "_".join(map(str, (kind, *arguments)))
        self.aot_path = folder / "aot" / self.build_dir.name / "module.so"
        self.failure = None

    @property
    def is_compiled(self):
        return self.get_library_path().exists()

    def get_library_path(self):
        return self.aot_path if self.aot_path.exists() else self.build_dir / "module.so"

    def build(self, need_lock):
        assert need_lock
        if self.failure:
            raise RuntimeError(self.failure)
        assert (Path(os.environ["LIBRARY_PATH"].split(":")[-1]) / "libcuda.so").exists()
        self.build_dir.mkdir(parents=True)
        (self.build_dir / "module.so").write_text(self.kind)


@pytest.fixture
def played(monkeypatch, tmp_path):
    """FlashInfer, with its target architectures; nvcc in tmp_path."""

    def maker(kind):
        return lambda *arguments: Spec(tmp_path, kind, arguments)

    targets = SimpleNamespace(TARGET_CUDA_ARCHS={HOPPER})
    parts = {
        "flashinfer": {},
        "flashinfer.jit": {
            "current_compilation_context": targets,
            "gen_batch_decode_module": maker("decode"),
            "gen_batch_prefill_module": maker("prefill"),
        },
        "flashinfer.jit.attention": {},
        "flashinfer.jit.attention.modules": {"_gen_batch_prefill_primary_module": maker("primary")},
        "flashinfer.jit.cpp_ext": {"get_cuda_path": lambda: str(tmp_path / "cuda")},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(flashinfer, "find_spec", lambda _name: object())
    monkeypatch.setattr(flashinfer_modules.shutil, "which", lambda name: name)
    return targets


def shape_of(heads=8, head_dim=128, variants=PLAIN):
    return AttentionShape(variants, heads, PagedSpec(2, 8, head_dim, torch.bfloat16, torch.device("cuda")))


@pytest.mark.parametrize(
    ("heads", "targets", "kinds"),
    [
        (8, {HOPPER}, ["decode", "prefill"]),
        (32, {HOPPER}, ["prefill"]),
        (8, {AMPERE}, ["decode", "primary"]),
        (32, {AMPERE}, ["primary"]),
        (8, {AMPERE, HOPPER}, ["decode", "primary", "prefill"]),
    ],
)
def test_modules_follow_from_heads_and_architectures(played, heads, targets, kinds):
    """32 heads share the keys of 8: they are decoded by kernels of our own."""
    played.TARGET_CUDA_ARCHS = targets
    assert [module.spec.kind for module in modules_of(shape_of(heads))] == kinds


def test_modules_are_made_for_type_size_windows_and_soft_caps(played):
    both = (AttentionVariant(), AttentionVariant(window=5, softcap=2.0), AttentionVariant(window=9, softcap=2.0))
    plain_decode, plain_prefill, decode, prefill = modules_of(shape_of(head_dim=80, variants=both))
    types = (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.int32, 128, 128, 0)
    assert plain_decode.spec.arguments == (*types, False, False)
    assert plain_prefill.spec.arguments == ("fa3", *types, False, False, False)
    assert decode.spec.arguments == (*types, True, True)
    assert prefill.spec.arguments == ("fa3", *types, True, True, False)
    assert (plain_decode.title, prefill.title) == (
        "decode (bfloat16, heads of 128)",
        "FA3, prefill (bfloat16, heads of 128, windows, soft cap)",
    )


def test_a_cache_of_8_bits_has_modules_of_its_own(played):
    """FA3 takes none beside queries of 16 bits."""
    played.TARGET_CUDA_ARCHS = {HOPPER}
    shape = shape_of()
    narrow = replace(shape, state=replace(shape.state, narrow=torch.float8_e4m3fn))
    decode, prefill = (module.spec for module in modules_of(narrow))
    types = (torch.bfloat16, torch.float8_e4m3fn, torch.bfloat16, torch.int32)
    assert (decode.kind, decode.arguments[:4]) == ("decode", types)
    assert (prefill.kind, prefill.arguments[:5]) == ("primary", ("fa2", *types))
    assert "cache in float8_e4m3fn" in modules_of(narrow)[0].title


def test_what_is_missing_is_compiled_with_a_line_each(played, tmp_path):
    played.TARGET_CUDA_ARCHS = {AMPERE, HOPPER}
    modules = modules_of(shape_of())
    compile_modules(modules[:1], lambda _line: None)
    lines = []
    compile_modules(modules, lines.append)
    assert lines[0] == f"Compiling 2 of FlashInfer's modules, once: they are kept in {tmp_path / 'cached_ops'}"
    assert [line.rsplit(" in ")[0] for line in lines[1:]] == [
        "Compiled FA2, prefill (bfloat16, heads of 128)",
        "Compiled FA3, prefill (bfloat16, heads of 128)",
    ]
    assert all(module.spec.is_compiled for module in modules)
    compile_modules(modules, lines.append)
    assert len(lines) == 3


@pytest.mark.parametrize("before", [None, "/some/libraries"])
def test_linkers_find_a_driver_while_modules_are_compiled(played, monkeypatch, before):
    """`Spec.build` looks for it."""
    if before is None:
        monkeypatch.delenv("LIBRARY_PATH", raising=False)
    else:
        monkeypatch.setenv("LIBRARY_PATH", before)
    compile_modules(modules_of(shape_of()), lambda _line: None)
    assert os.environ.get("LIBRARY_PATH") == before


def test_modules_go_into_the_package_once(played):
    modules = modules_of(shape_of())
    compile_modules(modules, lambda _line: None)
    lines = []
    for _ in range(2):
        embed_modules(modules, lines.append)
    assert [module.spec.aot_path.read_text() for module in modules] == ["decode", "prefill"]
    assert len(lines) == 2


def test_a_compilers_last_words_are_quoted(played):
    modules = modules_of(shape_of())
    modules[0].spec.failure = "\n".join(["c++ " + "-I/x " * 1000, *map(str, range(30)), "ld: cannot find -lcudart"])
    with pytest.raises(StartError, match=r"decode \(bfloat16, heads of 128\) could not be compiled") as raised:
        compile_modules(modules, lambda _line: None)
    assert str(raised.value).endswith("ld: cannot find -lcudart") and len(str(raised.value)) < 1000


def test_missing_compilers_are_named(played, monkeypatch, tmp_path):
    monkeypatch.setattr(flashinfer_modules.shutil, "which", lambda name: name if name in ("cc", "c++") else None)
    with pytest.raises(StartError, match=f"compile 2 modules .* no {tmp_path}/cuda/bin/nvcc and no ninja: install"):
        compile_modules(modules_of(shape_of()), lambda _line: None)


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Run the command for a model with this config; logging is as it was afterwards."""

    def run(config, *options):
        model = tmp_path / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        return CliRunner().invoke(cli.app, ["prepare-kernels", str(model), *options])

    # Set first, so that it is taken back whatever the command sets.
    monkeypatch.setenv("FLASHINFER_CUDA_ARCH_LIST", "9.0a")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:], root.level = handlers, level
    logger.remove()
    logger.add(sys.stderr)


def test_the_command_compiles_and_embeds(played, prepare, tmp_path):
    """A head a rank, so that no heads share keys."""
    result = prepare(LLAMA, "--dtype", "bfloat16", "--arch", "9.0a", "--embed", "--num-shard", "4")
    assert result.exit_code == 0, result.output
    assert {path.read_text() for path in tmp_path.glob("aot/*/*.so")} == {"decode", "prefill"}
    assert "bfloat16, heads of 128" in result.output and "All 2 modules" in result.output


def test_the_command_wants_an_architecture(played, prepare):
    played.TARGET_CUDA_ARCHS = set()
    result = prepare(LLAMA)
    assert result.exit_code == 1 and "no GPU here to compile kernels for" in result.stderr


@pytest.mark.parametrize(
    ("config", "options", "code", "words"),
    [
        (LLAMA, ("--dtype", "float32"), 1, "it computes in float16 and bfloat16, not torch.float32"),
        (LLAMA, ("--num-shard", "3"), 1, "4 attention heads, which 3 shards cannot divide"),
        (LLAMA, ("--arch", "hopper"), 2, "--arch is 'hopper', expected architectures such as 9.0a"),
        (MAMBA, (), 1, "FlashInfer is for decoders, and will not serve this model"),
        ({"model_type": "nemotron"}, (), 1, "model_type nemotron runs through transformers' code"),
    ],
)
def test_the_command_refuses_what_it_cannot_prepare(played, prepare, config, options, code, words):
    result = prepare(config, *options)
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_the_command_needs_flashinfer(prepare, monkeypatch):
    monkeypatch.setattr(flashinfer, "find_spec", lambda _name: None)
    result = prepare(LLAMA)
    assert result.exit_code == 1 and "it is not installed (extra `cuda`)" in result.stderr
