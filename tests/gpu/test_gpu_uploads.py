"""Weights that reach a CUDA device through pinned blocks: all of them, in the type of their place, by any thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from text_generation_server.device.uploads import Uploads

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("gpu", range(max(1, torch.cuda.device_count())))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_that_upload_together_mix_nothing_up(gpu, dtype):
    upload = Uploads(block_bytes=1 << 16)
    sources = [torch.randn(300, 700, generator=torch.Generator().manual_seed(seed)) for seed in range(24)]

    def one(source):
        place = torch.empty(source.shape, dtype=dtype, device=torch.device("cuda", gpu))
        upload(source, place)
        return place

    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(one, sources))
    for source, place in zip(sources, places, strict=True):
        assert torch.equal(place.cpu(), source.to(dtype))
