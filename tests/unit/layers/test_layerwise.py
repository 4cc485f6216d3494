"""Layers built several at a time: their order, their threads, their failures, and progress that counts them all."""

import threading

import pytest
import torch
from safetensors.torch import save_file

from text_generation_server.models.layerwise import build_layers
from text_generation_server.weights.checkpoint import SavedCheckpoint


@pytest.fixture(params=[1, 2, 6])
def threads(request):
    """Threads that torch computes with, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_layers_come_in_order_and_torch_keeps_its_threads(threads):
    inside = []

    def build(layer):
        inside.append(torch.get_num_threads())
        return layer

    assert build_layers(build, 9) == list(range(9))
    assert set(inside) == {threads // min(threads, 4)}
    assert torch.get_num_threads() == threads


def test_layers_are_built_side_by_side(threads):
    together = threading.Barrier(min(threads, 4))
    assert build_layers(lambda _layer: together.wait(timeout=30) >= 0, min(threads, 4)) == [True] * min(threads, 4)


def test_what_a_layer_raises_is_raised(threads):
    def build(layer):
        if layer == 5:
            raise LookupError("layer 5")

    with pytest.raises(LookupError, match="layer 5"):
        build_layers(build, 9)
    assert torch.get_num_threads() == threads


def test_progress_of_several_threads_only_grows_and_ends_at_the_whole(tmp_path):
    reports = []
    save_file({f"{layer}": torch.zeros(layer + 1) for layer in range(64)}, tmp_path / "model.safetensors")
    files = SavedCheckpoint(tmp_path, "", lambda *report: reports.append(report))
    build_layers(lambda layer: files.view(f"{layer}", (layer + 1,)), 64)
    total = 4 * sum(range(65))
    assert len(reports) == 64
    assert reports == sorted(reports)
    assert reports[-1] == (total, total)
