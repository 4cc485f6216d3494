"""What images mean to the engine beside their features: prefixes that differ by them, and prompts that stay whole."""

from dataclasses import replace

import numpy as np
import pytest

from mocks.mock_model import MockModel, greedy_continuation
from text_generation_server.engine.types import PrefillCommand, RefusedRequest, Request, StoppingParams
from text_generation_server.images.types import PlacedImage, PreparedImage
from text_generation_server.sampling.params import SamplingParams

PROMPT = b"ab____cd"


def request(request_id: int, shown: bytes, new: int, **changes: object) -> Request:
    """A prompt with one image, `shown`, at its four lines."""
    image = PreparedImage(np.zeros((1, 3, 2, 2), np.float32), (2, 2), (2, 2), 4, shown * 32)
    plain = Request(request_id, tuple(PROMPT), SamplingParams(), StoppingParams(new, ignore_eos=True))
    return replace(plain, images=(PlacedImage(image, range(2, 6)),), **changes)


def tokens(engine, batch_id: int, one: Request) -> list[int]:
    result = engine.prefill(PrefillCommand(batch_id, (one,)))
    ids = list(result.generations[0].tokens.ids)
    while result.batch:
        result = engine.decode([batch_id])
        ids += result.generations[0].tokens.ids
    return ids


def test_a_prefix_is_shared_by_what_it_shows(make_engine):
    model = MockModel()
    engine = make_engine(model=model, run_ahead=False)

    def computed(request_id: int, shown: bytes, beginning: int) -> int:
        before = model.computed_tokens
        slots = (*range(beginning), *range(40, 48 - beginning))
        found = tokens(engine, request_id, request(request_id, shown, 1, slots=slots, cache_len=beginning))
        assert found == greedy_continuation(PROMPT, 1, True)
        return model.computed_tokens - before

    tokens(engine, 0, request(0, b"1", 1, slots=tuple(range(8))))
    assert computed(1, b"1", beginning=6) == 2
    assert computed(2, b"2", beginning=6) == 6  # the text before the image is the same


def test_a_prompt_with_images_is_left_whole_where_slots_are_few(make_engine):
    engine = make_engine()
    answer = tokens(engine, 0, request(0, b"1", 5, slots=tuple(range(10))))
    assert answer == greedy_continuation(PROMPT, 3, True)


@pytest.mark.parametrize("slots", [7, 5])
def test_it_is_refused_where_it_does_not_fit_at_all(make_engine, slots):
    engine = make_engine()
    admitted, refused = engine.pool.admit((request(0, b"1", 5, slots=tuple(range(slots))),), {})
    assert admitted == []
    assert refused == [
        RefusedRequest(
            0, f"request 0: {slots} slots cannot hold a prompt and 5 new tokens; allocate prompt + max_new_tokens - 1"
        )
    ]
