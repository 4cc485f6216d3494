"""The instructions that make pairs of numbers, run here one by one: Triton's interpreter has none of its own."""

import pytest
import torch
import triton.language as tl

from text_generation_server.kernels.matmul.packed import Code
from text_generation_server.kernels.matmul.packed_tile import (
    MAGIC,
    four_instructions,
    pair_instructions,
    table_instructions,
)

TYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
ARITHMETIC = {"sub": lambda a, b: a - b, "mul": lambda a, b: a * b}


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


def chosen(low, high, selectors):
    """`prmt`: four of the eight bytes of two words, each by three bits, or its sign's copies if a fourth is set."""
    bytes_of = (low | high << 32).to_bytes(8, "little")
    found = []
    for at in range(4):
        selector = selectors >> 4 * at & 15
        byte = bytes_of[selector & 7]
        found.append(byte if selector < 8 else 255 * (byte >> 7))
    return int.from_bytes(bytes(found), "little")


BITS = {"mov": lambda a: a, "shr": int.__rshift__, "shl": int.__lshift__, "and": int.__and__, "prmt": chosen}


def run(text, dtype, registers):
    """What instructions leave in registers, by name, that had numbers and codes before."""
    registers = dict(registers)
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
            registers[target] = BITS[kind](*words) & 0xFFFFFFFF
    return registers


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("code", [Code.INT8, Code.FLOAT8])
def test_every_code_of_a_byte_becomes_its_number(code, dtype):
    """Whatever else is in the words."""
    numbers = torch.arange(256, dtype=torch.uint8).view(code.dtype).double()
    for slab in range(2):
        text, shift = pair_instructions(code.value, slab, TYPES[dtype]), 8 * slab
        for at in range(256):
            other = at ^ 5
            if not bool(numbers[[at, other]].isfinite().all()):
                continue
            noise = (0x9E3779B9 * (at + 1)) & 0xFFFFFFFF & ~(0x00FF00FF << shift)
            word = noise | at << shift | other << shift + 16
            got = as_numbers(run(text, dtype, {"$1": word})["$0"], dtype)
            assert got.tolist() == numbers[[at, other]].tolist()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_all_places_of_two_words_become_numbers_at_once(dtype):
    for word in torch.randint(1 << 32, (16,), generator=torch.Generator().manual_seed(0)).tolist():
        found = run(four_instructions(TYPES[dtype]), dtype, {"$4": word})
        for place in range(4):
            codes = [word >> 4 * place + half & 15 for half in (0, 16)]
            assert as_numbers(found[f"${place}"], dtype).tolist() == [MAGIC[dtype] + code for code in codes]


def test_codes_are_looked_up_in_a_table():
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(1 << 16, (16,), generator=generator).tolist()
    words = {}
    for first, shift in ((5, 0), (13, 8)):
        for four in range(4):
            bytes_of = bytes(table[4 * four + at] >> shift & 255 for at in range(4))
            words[f"${first + 2 * four}"] = int.from_bytes(bytes_of, "little")
    for word in torch.randint(1 << 32, (64,), generator=generator).tolist():
        found = run(table_instructions(), None, words | {"$4": word})
        for place in range(4):
            low, high = (table[word >> 4 * place + half & 15] for half in (0, 16))
            assert found[f"${place}"] == low | high << 16
