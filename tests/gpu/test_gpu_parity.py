"""Every case on a CUDA device, against transformers on the CPU."""

import pytest
import torch

from oracles.build import ANSWER_LEN, build
from oracles.driver import Driver
from oracles.table import CASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(scope="module", params=CASES, ids=str)
def oracle(request, tmp_path_factory):
    """A case, its directory, its reference."""
    directory = tmp_path_factory.mktemp("oracle")
    return request.param, directory, build(request.param, directory)


def driver_of(directory, reference, dtype, attention):
    options = ModelOptions(dtype, torch.device("cuda"), attention=attention)
    model = load_model(directory, options, SingleRank(), lambda _done, _total: None)
    return Driver(model, reference.spans, images=reference.images, prompts=[*map(len, reference.prompts)])


@pytest.mark.parametrize("attention", ["sdpa", "triton"])
def test_float32_is_what_the_cpu_says(oracle, attention):
    """Products on the device are added up in another order, which large logits show."""
    case, directory, reference = oracle
    answers, logits = driver_of(directory, reference, torch.float32, attention).greedy(reference.prompts, ANSWER_LEN)
    assert answers == reference.answers
    for row, expected in zip(logits, reference.logits, strict=True):
        torch.testing.assert_close(row, expected, atol=5 * case.tolerance, rtol=1e-5)


def test_bfloat16_is_float32_up_to_rounding(oracle):
    _, directory, reference = oracle
    driver = driver_of(directory, reference, torch.bfloat16, "triton")
    for row, (sequence, expected) in enumerate(zip(reference.sequences, reference.logits, strict=True)):
        (got,) = driver.step([(row, sequence)])
        assert got.dtype is torch.bfloat16
        chosen = expected.isfinite()  # some tokens never are
        # Rounding may choose another expert, so this only tells noise from nonsense.
        assert (got.float() - expected)[chosen].std() < 0.5 * expected[chosen].std()
