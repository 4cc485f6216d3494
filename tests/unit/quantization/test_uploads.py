"""Weights that go to a device through blocks: all of them arrive, and no block is written to that is still fetched."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from text_generation_server.device.current import on_device
from text_generation_server.device.uploads import Uploads

BLOCK = 64


def uploads(fence=lambda: lambda: None):
    return Uploads(pinned=False, fence=fence, block_bytes=BLOCK)


@pytest.mark.parametrize(
    "source",
    [
        torch.arange(4.0),
        torch.arange(700.0),
        torch.arange(96.0).view(48, 2)[:, 1:],
        torch.arange(400.0).view(4, 100),
        torch.arange(400.0).view(100, 4).T,
        torch.arange(96.0).view(2, 6, 8),
        torch.zeros(0, 5),
        torch.tensor(3.0),
    ],
    ids=lambda source: str(tuple(source.shape)),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_of_a_tensor_arrives_in_the_type_of_its_place(source, dtype):
    place = torch.full(source.shape, -1.0, dtype=dtype)
    uploads()(source, place)
    assert torch.equal(place, source.to(dtype))


def test_a_block_is_filled_again_only_when_it_has_been_fetched():
    """Every thread has two: it waits for the copy before the last, never for the last."""
    events, count = [], iter(range(100))

    def fence():
        number = next(count)
        events.append(("sent", number))
        return lambda: events.append(("done", number))

    uploads(fence)(torch.arange(64.0), torch.empty(64))
    assert events == [("sent", 0), ("sent", 1), ("done", 0), ("sent", 2), ("done", 1), ("sent", 3)]


def test_threads_do_not_share_blocks():
    upload, together = uploads(), threading.Barrier(4)

    def one(number):
        place = torch.empty(2000)
        together.wait(5)
        upload(torch.full((2000,), float(number)), place)
        return place

    with ThreadPoolExecutor(4) as pool:
        for number, place in enumerate(pool.map(one, range(4))):
            assert (place == number).all()


def test_what_a_thread_does_for_another_gpu_is_done_there(monkeypatch):
    """A new thread's own GPU is the first: an event of it would wait for nothing that the second one fetches."""
    entered = []

    class Device:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)

        def __exit__(self, *_):
            entered.append(None)

    monkeypatch.setattr(torch.cuda, "device", Device)
    with on_device(torch.device("cuda", 1)):
        assert entered == [torch.device("cuda", 1)]
    with on_device(torch.device("cpu")):
        assert entered == [torch.device("cuda", 1), None]
