"""The products of adapters against their twin, for every mixture."""

from dataclasses import replace

import pytest
import torch

from text_generation_server.adapters import bank as module
from text_generation_server.adapters.bank import BankLayout, LoraBank
from text_generation_server.adapters.pairs import LoraPair
from text_generation_server.distributed.group import SingleRank
from text_generation_server.kernels.lora import linear as lora
from text_generation_server.kernels.lora import segments
from text_generation_server.kernels.lora.segments import segments_of
from text_generation_server.kernels.matmul.config import KernelConfig, KernelKind
from text_generation_server.kernels.matmul.linear import SmallBatchLinear
from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.linear import (
    ColumnParallelLinear,
    LinearKernel,
    LinearSlice,
    LinearStep,
    RowParallelLinear,
)
from text_generation_server.specs.activation import Activation

PLACES = 5
MIXTURES = [[0], [5], [3, 0], [0, 0, 0], [2] * 20, [1, 5, 0, 3, 3, 2, 4, 5, 0, 5, 1], [*range(6)] * 7]


@pytest.fixture(params=[256, 4], ids=["few", "many"])
def few(request, monkeypatch):
    for name in ("FEW", "COMPARED"):
        monkeypatch.setattr(segments, name, request.param)


@pytest.mark.parametrize("adapters", MIXTURES, ids=len)
def test_tokens_are_put_in_segments_of_one_adapter(device, few, adapters):
    found = segments_of(torch.tensor(adapters, device=device), PLACES)
    table = found.table.tolist()
    cut = [(place + 1, start, end) for place, start, end in table if start < end]
    assert table[: len(cut)] == [[place - 1, start, end] for place, start, end in cut]  # those without tokens are last
    assert all(end - start <= found.size for _, start, end in cut)
    for place in set(adapters) - {0}:
        own = [(start, end) for owner, start, end in cut if owner == place]
        tokens = [t for start, end in own for t in found.order[start:end].tolist()]
        assert tokens == [t for t, a in enumerate(adapters) if a == place]
        assert len(own) == -(-adapters.count(place) // found.size)


@pytest.mark.parametrize(("tokens", "places"), [(1, 4), (33, 4), (40, 100)])
def test_there_is_room_for_every_mixture(device, few, tokens, places):
    most = min(tokens, places)
    spread = [*range(1, most + 1), *[1] * (tokens - most)]  # as many segments as there can be
    found = segments_of(torch.tensor(spread, device=device), places)
    assert sum(end - start for _, start, end in found.table.tolist()) == tokens


def filled(linear, device, dtype, rank):
    """A bank with adapters of different ranks, some of which leave a part out."""
    layout, drawn = BankLayout([linear], rank), torch.Generator().manual_seed(1)
    bank = LoraBank(layout, PLACES, dtype, device)
    shapes = {piece.name: piece.shape for piece in linear.slices}
    for place in range(1, PLACES + 1):
        own = 1 + place * (rank - 1) // PLACES
        pairs = {
            name: LoraPair(
                torch.randn(own, inputs, generator=drawn) / inputs**0.5, torch.randn(outputs, own, generator=drawn), 0.5
            )
            for at, (name, (outputs, inputs)) in enumerate(shapes.items())
            if at == 0 or place % (at + 1)
        }
        bank.put(place, layout.pack(pairs, dtype, pinned=False))
    return bank


def column(outputs, inputs):
    starts = [sum(outputs[:at]) for at in range(len(outputs))]
    slices = [LinearSlice(str(at), (n, inputs), slice(0, n), starts[at]) for at, n in enumerate(outputs)]
    return ColumnParallelLinear(lambda x: x, slices), sum(outputs)


@pytest.mark.parametrize("adapters", MIXTURES, ids=len)
@pytest.mark.parametrize(
    ("outputs", "inputs", "rank", "dtype"),
    [((160, 32, 32), 320, 16, torch.float32), ((7, 150), 33, 5, torch.float32), ((64,), 1100, 24, torch.float16)],
)
def test_every_mixture_gets_what_the_twin_says(device, few, adapters, outputs, inputs, rank, dtype):
    linear, width = column(outputs, inputs)
    filled(linear, device, dtype, rank)
    addend, drawn = linear.addend, torch.Generator().manual_seed(2)
    x = torch.randn(len(adapters), inputs, generator=drawn).to(device, dtype)
    before = torch.randn(len(adapters), width, generator=drawn).to(device, dtype)
    numbers = torch.tensor(adapters, device=device)
    addend._kernel = None
    expected = addend(x, numbers, LinearStep(numbers))(before.clone())
    addend._kernel = module._kernel(addend._parts, addend._numbers, addend._ranks, rank)
    got = addend(x, numbers, LinearStep(numbers))(before.clone())
    tolerance = 1e-4 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
    assert got[numbers == 0].equal(before[numbers == 0])


def test_inputs_that_are_padding_are_not_read(device):
    linear = RowParallelLinear(lambda x: x, [LinearSlice("o", (48, 40), slice(8, 40), 0)], SingleRank())
    filled(linear, device, torch.float32, 16)
    numbers = torch.tensor([1, 2, 0, 1], device=device)
    x = torch.cat((torch.randn(4, 32), torch.full((4, 8), torch.nan)), 1).to(device)
    expected = linear.addend(x, numbers, LinearStep(numbers))(torch.zeros(4, 48, device=device))
    linear.addend._kernel = module._kernel(linear.addend._parts, linear.addend._numbers, linear.addend._ranks, 16)
    got = linear.addend(x, numbers, LinearStep(numbers))(torch.zeros(4, 48, device=device))
    torch.testing.assert_close(got, expected)


class Carrying(LinearKernel):
    """Multiplies by one choice, and adds what it is offered."""

    def __init__(self, weight, bias, choice, kind=None):
        self.multiply = SmallBatchLinear(weight.device)
        self.weight, self.bias, self.choice, self.kind = weight, bias, choice, kind

    def __call__(self, x):
        raise AssertionError("adapters are there")

    def with_addend(self, x, offer):
        return self.multiply(x, self.weight, self.bias, self.choice, self.kind, offer())

    def gated(self, kind):
        return Carrying(self.weight, self.bias, self.choice, kind)


GEMV = KernelConfig(KernelKind.GEMV, block_n=8, block_k=64, warps=1, stages=2)
DOT = KernelConfig(KernelKind.DOT, block_n=16, block_k=32, warps=1, stages=2)
SWAPPED = KernelConfig(KernelKind.DOT, block_n=64, block_k=32, warps=4, stages=2)


@pytest.mark.parametrize(
    ("choice", "kind", "rank"),
    [
        (GEMV, None, 16),
        (GEMV, Activation.SILU, 5),
        (DOT, None, 5),
        (replace(DOT, splits=3), None, 40),
        (SWAPPED, Activation.SILU, 16),
        (replace(SWAPPED, splits=2), None, 16),
    ],
    ids=str,
)
def test_a_product_s_own_kernel_adds_what_the_twin_says(device, choice, kind, rank, monkeypatch):
    """Several products a step, so that what one leaves is found by the next; outputs of several parts in a block."""
    for name, number in {"SHARE": 64, "LEAST_SHARE": 64, "LOW_RANK": rank}.items():
        monkeypatch.setattr(lora, name, number)
    outputs, inputs = ((20, 20) if kind else (48, 7, 30)), 192
    linear, width = column(outputs, inputs)
    filled(linear, device, torch.float16, rank)
    drawn = torch.Generator().manual_seed(3)
    weight = (torch.randn(width, inputs, generator=drawn) / 20).to(device, torch.float16)
    bias = torch.randn(width, generator=drawn).to(device, torch.float16)
    addend, linear._kernel = linear.addend, Carrying(weight, bias, choice)
    multiply = linear if kind is None else linear.gated(kind)
    kernel = module._kernel(addend._parts, addend._numbers, addend._ranks, rank)
    for adapters in [[5, 2]] if choice.kernel is KernelKind.GEMV else [[2] * 20, MIXTURES[-2]]:
        numbers = torch.tensor(adapters, device=device)
        step = LinearStep(numbers)
        for _ in range(3):
            x = torch.randn(len(adapters), inputs, generator=drawn).to(device, torch.float16)
            addend._kernel = None
            added = addend(x, numbers, LinearStep(numbers))(x.new_zeros(len(x), width))
            expected = x.float() @ weight.float().T + bias.float() + added.float()
            if kind is not None:
                expected = gated_activation(kind)(expected.half())
            addend._kernel = kernel
            torch.testing.assert_close(multiply(x, step).float(), expected.float(), atol=0.02, rtol=0.01)


def test_many_tokens_and_many_or_large_adapters_are_left_to_kernels_of_their_own():
    assert lora.are_few(32, 8, 16)
    assert lora.are_few(8, 32, 16)
    assert not any(lora.are_few(*more) for more in [(33, 8, 16), (9, 9, 16), (8, 8, 17)])


@pytest.mark.parametrize("tokens", [33, 2])
def test_what_is_few_is_offered(device, tokens, few):
    linear, _ = column((32,), 64)
    filled(linear, device, torch.float16, 16)
    addend, numbers = linear.addend, torch.ones(tokens, dtype=torch.int64, device=device)
    addend._kernel = module._kernel(addend._parts, addend._numbers, addend._ranks, 16)
    offer = addend.offer(torch.zeros(tokens, 64, device=device), numbers, LinearStep(numbers))
    assert (offer is not None) == (tokens == 2 and segments.COMPARED > PLACES)
