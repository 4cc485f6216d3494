"""Images in the engine: read once for all that show them, kept no longer than needed, never taken for each other.

That sequences with images come and go in any order is in `test_engine_schedules.py`.
"""

from dataclasses import replace

import pytest

from mocks.mock_model import MockModel, greedy_continuation
from mocks.pictured_model import PicturedMockModel, picture, seen
from text_generation_server.cache.layout import Block
from text_generation_server.engine.types import Failure, PrefillCommand, Request, StoppingParams
from text_generation_server.errors import GenerationError, InvalidRequest, OutOfBlocks
from text_generation_server.images.types import PlacedImage
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.specs.vision import Sight

PROMPT = b"an iiiii here"
SLOTS = tuple(range(40, 60))


def asked(request_id: int, *contents: int, new: int = 3, **changes: object) -> Request:
    """A prompt with these images, the first at position 3 and 5 long, the others behind."""
    prompt = PROMPT + b" iiiii" * (len(contents) - 1)
    starts = [3, *range(len(PROMPT) + 1, len(prompt), 6)]
    images = [PlacedImage(picture(content, 5), range(at, at + 5)) for content, at in zip(contents, starts, strict=True)]
    plain = Request(request_id, tuple(prompt), SamplingParams(), StoppingParams(new, ignore_eos=True))
    return replace(plain, images=tuple(images), **changes)


def expected(request: Request) -> list[int]:
    return greedy_continuation(seen(request.prompt_ids, request.images), request.stopping.max_new_tokens, True)


def answers(engine, *requests: Request) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    result = engine.prefill(PrefillCommand(1, requests))
    while True:
        for generation in result.generations:
            found.setdefault(generation.request_id, []).extend(generation.tokens.ids)
        if result.batch is None:
            return found
        result = engine.decode([1])


@pytest.fixture
def model():
    return PicturedMockModel()


def test_an_image_is_read_once_for_all_that_show_it(make_engine, model):
    engine = make_engine(model=model)
    requests = [asked(1, 100), asked(2, 101, 100), asked(3, 100, 100)]
    assert answers(engine, *requests) == {request.id: expected(request) for request in requests}
    assert model.reader.contents == [100, 101]
    assert answers(engine, asked(4, 101)) == {4: expected(asked(4, 101))}
    assert model.reader.contents == [100, 101]


def test_chunks_find_what_was_read_before_the_first(make_engine, model):
    engine = make_engine(model=model, max_prefill_tokens=2, feature_places=10)
    requests = [asked(1, 100, chunk=1), asked(2, 101)]
    assert answers(engine, *requests) == {request.id: expected(request) for request in requests}
    assert answers(engine, asked(3, 102, 103)) == {3: expected(asked(3, 102, 103))}  # in the places of the others
    assert model.reader.contents == [100, 101, 102, 103]


def test_places_are_lent_until_the_last_position_is_computed(make_engine, model):
    engine = make_engine(model=model, feature_places=5, max_prefill_tokens=2)
    first = engine.prefill(PrefillCommand(1, (asked(1, 100, new=30, chunk=2),)))
    assert not first.generations
    with pytest.raises(OutOfBlocks, match="5 features of images are to be kept and 0 of 5 places are free"):
        engine.prefill(PrefillCommand(2, (asked(2, 101),)))
    for _ in range(3):
        engine.decode([1])
    engine.prefill(PrefillCommand(3, (asked(3, 101),)))


def test_a_prefix_is_shared_with_the_same_image_only(make_engine, model):
    engine = make_engine(model=model)
    for request_id, content in enumerate((100, 101, 101, 100)):
        asked_for = asked(request_id, content, slots=SLOTS, cache_len=len(PROMPT))
        assert answers(engine, asked_for) == {request_id: expected(asked_for)}
    # The second has the first's beginning up to the image, the third all of the second's but the last token; what it
    # takes over was computed with the image, which need not be read for it.
    assert model.reader.contents == [100, 101]
    prompts = [size for size in model.sizes if size > 1]
    assert prompts == [len(PROMPT), len(PROMPT) - 3, len(PROMPT) - 3]


def test_readers_are_told_where_images_stand_of_which_nothing_is_to_be_computed_too(make_engine, model):
    engine = make_engine(model=model)
    for request in (asked(1, 100), asked(2, 100, cache_len=len(PROMPT)), replace(asked(3, 100), images=())):
        answers(engine, replace(request, slots=SLOTS))
    needed = len(PROMPT) + 2
    assert [(list(one.slots), one.images) for one in model.reader.placed] == [
        (list(SLOTS[:needed]), ((3, (1, 1)),)),
        (list(SLOTS[:needed]), ((3, (1, 1)),)),
        (list(SLOTS[:needed]), ()),
    ]


@pytest.mark.parametrize(("most", "sizes"), [(2, [2, 1, 5, 2, 2, 1]), (6, [3, 6, 4]), (9, [9, 4]), (20, [13])])
def test_images_whose_positions_see_each_other_are_not_cut(make_engine, model, most, sizes):
    model.reader.sight = Sight.IMAGES
    engine = make_engine(model=model, max_prefill_tokens=most)
    assert answers(engine, asked(1, 100, chunk=most)) == {1: expected(asked(1, 100))}
    assert model.sizes[: len(sizes)] == sizes
    assert [block for blocks in model.blocks for block in blocks] == [Block(0, 3, 8)]


def test_prompts_that_see_all_of_themselves_are_not_cut_and_answers_are_no_part_of_them(make_engine, model):
    model.reader.sight = Sight.PROMPTS
    engine = make_engine(model=model, max_prefill_tokens=4)
    request = asked(1, 100, chunk=2)
    said = answers(engine, request)[1]
    again = replace(request, prompt_ids=(*request.prompt_ids, *said[:2]), generated=2, chunk=None)
    assert [said[2], *answers(engine, again)[1][1:]] == answers(engine, again)[1] and said == expected(request)
    assert model.sizes[:1] == [13] and set(map(tuple, model.blocks)) == {(), (Block(0, 0, 13),)}


def test_what_a_failed_step_was_to_read_is_read_again(make_engine, model):
    engine = make_engine(model=model)
    model.reader.fail_on = 100
    with pytest.raises(GenerationError, match="the mock device failed"):
        engine.prefill(PrefillCommand(1, (asked(1, 101, 100),)))
    model.reader.fail_on = None
    assert answers(engine, asked(2, 100, 101)) == {2: expected(asked(2, 100, 101))}
    assert model.reader.contents == [101, 100, 101]


def test_images_that_cannot_be_are_refused_alone(make_engine, model):
    engine = make_engine(model=model, feature_places=8)
    short = replace(asked(3, 100), images=(PlacedImage(picture(100, 5), range(10, 15)),))
    result = engine.prefill(PrefillCommand(1, (asked(1, 100), asked(2, 100, 101), short)))
    refused = {g.request_id: g.finished.reason for g in result.generations if isinstance(g.finished, Failure)}
    assert "its images have 10 features, expected at most 8" in refused[2]
    assert "not all of which are in the prompt of 13 tokens" in refused[3]
    with pytest.raises(InvalidRequest, match="this model takes text only"):
        make_engine(model=MockModel()).prefill(PrefillCommand(1, (asked(1, 100),)))
