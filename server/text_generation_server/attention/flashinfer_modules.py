"""The modules that FlashInfer compiles: which ones a model needs, and compiling them before they are. Knows no plan.

By itself FlashInfer compiles a module when it is first used: in a request, for minutes, without a word. Checked with
FlashInfer 0.7.2, whose prefill of FA2 is a module that only an internal function names.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from text_generation_server.attention.base import AttentionShape
from text_generation_server.environment import library_folder
from text_generation_server.errors import StartError

HEAD_DIMS = (64, 128, 256)
"""Of its kernels, the smallest first. Heads in between get zeros."""

HOPPER = 9
"""The major architecture that FA3 is for; with queries of 16 bits it takes no keys of 8."""

LAST_LINES, LINE_LENGTH = 12, 200
"""What is quoted of a compiler: its commands are thousands of characters long."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Module:
    """spec: FlashInfer's own. title: what it does, for people."""

    title: str
    spec: Any


def padded_head_dim(head_dim: int) -> int:
    """Numbers of the narrowest heads that there are kernels for; `head_dim` is at most the last of HEAD_DIMS."""
    return next(size for size in HEAD_DIMS if size >= head_dim)


def modules_of(shape: AttentionShape) -> list[Module]:
    """What a model's steps run, on the architectures of FLASHINFER_CUDA_ARCH_LIST, or else of this machine's GPUs.

    Raises StartError if there are neither.
    """
    from flashinfer.jit import current_compilation_context, gen_batch_decode_module, gen_batch_prefill_module
    from flashinfer.jit.attention.modules import _gen_batch_prefill_primary_module

    majors = {major for major, _ in current_compilation_context.TARGET_CUDA_ARCHS}
    if not majors:
        raise StartError("there is no GPU here to compile kernels for: name what they are for, as --arch 9.0a for H100")
    state = shape.state
    head_dim = padded_head_dim(state.head_dim)
    modules = []
    for window, softcap in dict.fromkeys((v.window is not None, v.softcap is not None) for v in shape.variants):
        words = f"{str(state.dtype).removeprefix('torch.')}, heads of {head_dim}"
        words += ", windows" * window + ", soft cap" * softcap
        words += "" if state.narrow is None else f", cache in {str(state.narrow).removeprefix('torch.')}"
        arguments = (state.dtype, state.held, state.dtype, torch.int32, head_dim, head_dim, 0, window, softcap)
        if shape.heads == state.kv_heads:
            modules.append(Module(f"decode ({words})", gen_batch_decode_module(*arguments)))
        if majors != {HOPPER} or state.narrow is not None:
            spec = _gen_batch_prefill_primary_module("fa2", *arguments, False)
            modules.append(Module(f"FA2, prefill ({words})", spec))
        if HOPPER in majors and state.narrow is None:
            modules.append(Module(f"FA3, prefill ({words})", gen_batch_prefill_module("fa3", *arguments, False)))
    return modules


def compile_modules(modules: Sequence[Module], report: Report) -> None:
    """Compile those that are not compiled yet into FlashInfer's cache; a line each with its seconds.

    Raises StartError, saying what is missing or what a compiler said.
    """
    missing = [module for module in modules if not module.spec.is_compiled]
    if not missing:
        return
    _require_compilers(missing)
    folder = missing[0].spec.build_dir.parent
    report(f"Compiling {len(missing)} of FlashInfer's modules, once: they are kept in {folder}")
    with _linkable_driver():
        for module in missing:
            report(f"Compiled {module.title} in {_compile(module):.1f} s")


def embed_modules(modules: Sequence[Module], report: Report) -> None:
    """Copy compiled modules into the installed package, which takes them from there without compilers or checks."""
    for module in modules:
        source, target = module.spec.get_library_path(), module.spec.aot_path
        if source != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            report(f"Copied {module.title} to {target.parent}")


def _compile(module: Module) -> float:
    began = time.monotonic()
    try:
        module.spec.build(need_lock=True)
    except RuntimeError as error:
        said = "\n".join(line[:LINE_LENGTH] for line in str(error).splitlines()[-LAST_LINES:])
        raise StartError(
            f"FlashInfer's module for {module.title} could not be compiled (is CUDA_HOME right?):\n{said}"
        ) from error
    return time.monotonic() - began


def _require_compilers(missing: Sequence[Module]) -> None:
    from flashinfer.jit.cpp_ext import get_cuda_path

    try:
        nvcc = Path(get_cuda_path()) / "bin" / "nvcc"
    except RuntimeError:
        nvcc = Path("nvcc")
    lacking = [name for name in (str(nvcc), "ninja", "cc", "c++") if shutil.which(name) is None]
    if lacking:
        raise StartError(
            f"FlashInfer has to compile {len(missing)} modules for this model, but there is no "
            f"{' and no '.join(lacking)}: install the CUDA toolkit (CUDA_HOME says where), ninja and a C++ compiler, "
            "or compile elsewhere with `text-generation-server prepare-kernels`, or start with --disable-flashinfer"
        )


@contextmanager
def _linkable_driver() -> Iterator[None]:
    """Let modules be linked where there is no driver: from a toolkit without stubs, its library would be missing."""
    with TemporaryDirectory() as folder:
        command = ["cc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", f"{folder}/libcuda.so"]
        subprocess.run(command, check=True, capture_output=True)
        with library_folder(folder):
            yield
