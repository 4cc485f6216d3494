"""Gathering slots against slices."""

import pytest
import torch

from text_generation_server.kernels import slots as module
from text_generation_server.kernels.slots import BLOCK, gather_slots

UNTOUCHED = -1


def gathered(device, rows, counts, positions, spare=3):
    """What the kernel makes of a table of distinct numbers, and what it should."""
    table = torch.arange(5 * positions, device=device).view(5, positions)
    ends = torch.tensor([0, *counts]).cumsum(0)
    out = torch.full((sum(counts) + spare,), UNTOUCHED, dtype=torch.int32, device=device)
    gather_slots(table, torch.tensor(rows, device=device), ends.to(device, torch.int32), out)
    parts = [table[row, :count] for row, count in zip(rows, counts, strict=True)]
    return out, torch.cat([*parts, torch.full((spare,), UNTOUCHED, device=device)]).to(torch.int32)


@pytest.mark.parametrize("counts", [(1,), (4, 1, 7), (0, 3, 0), (7, 7, 7, 7, 7)])
def test_rows_follow_each_other(device, counts):
    got, expected = gathered(device, [3, 0, 4, 1, 3][: len(counts)], counts, positions=7)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("programs", (1, 4, 2048))
def test_a_long_row_is_shared_by_programs(device, monkeypatch, programs):
    monkeypatch.setattr(module, "PROGRAMS", programs)
    counts = (3 * BLOCK + 5, BLOCK, 1)
    got, expected = gathered(device, [2, 0, 1], counts, positions=3 * BLOCK + 9)
    assert torch.equal(got, expected)


def test_no_rows(device):
    got, expected = gathered(device, [4], (0,), positions=2)
    assert torch.equal(got, expected)


def test_a_table_may_be_part_of_a_wider_one(device):
    table = torch.arange(60, device=device).view(3, 20)[:, :8]
    out = torch.zeros(5, dtype=torch.int32, device=device)
    ends = torch.tensor([0, 5], dtype=torch.int32, device=device)
    gather_slots(table, torch.tensor([2], device=device), ends, out)
    assert out.tolist() == [40, 41, 42, 43, 44]
