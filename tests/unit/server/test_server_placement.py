"""Which device, precision and threads a rank gets on hosts of different make."""

import os

import pytest
import torch

from text_generation_server.choices import Dtype
from text_generation_server.errors import InvalidSettings
from text_generation_server.placement import Placement, place


@pytest.fixture
def host(monkeypatch):
    """Pretend to have these GPUs, processors and processor features."""

    def pretend(gpus=0, processors=8, features=()):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))

    return pretend


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ((), torch.float32),
        (("avx512_f", "avx2"), torch.float32),
        (("avx512_bf16",), torch.bfloat16),
        (("amx_bf16",), torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(host, features, dtype):
    host(features=features)
    assert place(0, 1, None, None) == Placement(torch.device("cpu"), dtype, 8)


def test_a_given_dtype_is_used(host):
    host(features=("avx512_bf16",))
    assert place(0, 1, Dtype.FLOAT32, None).dtype == torch.float32


@pytest.mark.parametrize(("world_size", "given", "threads"), [(2, None, 4), (3, None, 2), (16, None, 1), (2, 6, 6)])
def test_ranks_divide_the_processors_unless_told_otherwise(host, world_size, given, threads):
    host()
    assert place(0, world_size, None, given).threads == threads


def test_each_rank_has_its_own_gpu(host):
    host(gpus=2)
    assert place(1, 2, None, None) == Placement(torch.device("cuda", 1), torch.float16, 4)


def test_invariance_is_refused_where_it_cannot_be_had(host):
    host(gpus=1)
    with pytest.raises(InvalidSettings, match="--deterministic is for CPUs"):
        place(0, 1, None, None, deterministic=True)
    host()
    assert place(0, 1, None, None, deterministic=True).device.type == "cpu"


def test_more_ranks_than_gpus_are_refused(host):
    host(gpus=2)
    with pytest.raises(InvalidSettings, match="WORLD_SIZE is 3, but only 2 GPUs are visible"):
        place(2, 3, None, None)
