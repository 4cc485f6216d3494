"""The instructions that make pairs of numbers, run here one by one: Triton's interpreter has none of its own."""

import pytest
import torch
import triton.language as tl

from text_generation_server.kernels.matmul.packed import Code
from text_generation_server.kernels.matmul.packed_tile import MAGIC, pair_instructions

TYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
ARITHMETIC = {"fma": lambda a, b, c: a * b + c, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}


def logic(table, *words):
    """`lop3`: the table's bit for each place's three bits."""
    bits = [sum((word >> place & 1) << (2 - at) for at, word in enumerate(words)) for place in range(32)]
    return sum((table >> index & 1) << place for place, index in enumerate(bits))


def as_numbers(word, dtype):
    """Both halves of a word."""
    halves = torch.tensor([word & 0xFFFF, word >> 16], dtype=torch.int32).to(torch.int16)
    return halves.view(dtype).double()


def as_word(numbers, dtype):
    """Two numbers, which must be exact."""
    rounded = numbers.to(dtype)
    assert torch.equal(rounded.double(), numbers)
    low, high = (int(half) & 0xFFFF for half in rounded.view(torch.int16))
    return low | high << 16


def run(text, dtype, word, offset):
    """The result of instructions on a word of two codes and one of two offsets."""
    registers = {"$1": word, "$2": offset}
    value = lambda name: registers[name] if name in registers else int(name, 0)  # noqa: E731
    for line in text.strip("{} ").split(";")[1:-1]:
        name, _, operands = line.strip().partition(" ")
        target, *sources = (operand.strip() for operand in operands.split(","))
        words = [value(source) for source in sources]
        kind = name.partition(".")[0]
        if kind in ARITHMETIC:
            registers[target] = as_word(ARITHMETIC[kind](*(as_numbers(source, dtype) for source in words)), dtype)
        elif kind == "lop3":
            registers[target] = logic(words[3], *words[:3])
        else:
            operation = {"mov": lambda a: a, "shr": int.__rshift__, "shl": int.__lshift__, "and": int.__and__}[kind]
            registers[target] = operation(*words) & 0xFFFFFFFF
    return as_numbers(registers["$0"], dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("code", Code)
def test_every_code_at_every_place_becomes_its_number(code, dtype):
    """Whatever else is in the words."""
    count, mask = 1 << code.bits, (1 << code.bits) - 1
    codes = torch.arange(count, dtype=torch.uint8)
    numbers = codes.double() - 8 if code is Code.INT4 else codes.view(code.dtype).double()
    offset = as_word(torch.full((2,), -MAGIC[dtype] - 8.0, dtype=torch.float64), dtype) if code is Code.INT4 else 0
    for slab in range(16 // code.bits):
        text, shift = pair_instructions(code.value, slab, TYPES[dtype]), code.bits * slab
        for at in range(count):
            other = at ^ 5
            if not bool(numbers[[at, other]].isfinite().all()):
                continue
            noise = (0x9E3779B9 * (at + 1)) & 0xFFFFFFFF & ~(mask << shift | mask << shift + 16)
            got = run(text, dtype, noise | at << shift | other << shift + 16, offset)
            assert got.tolist() == numbers[[at, other]].tolist()
