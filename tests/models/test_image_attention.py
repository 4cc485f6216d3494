"""Layers that attend to images, in the engine: rows with and without, chunks, prefixes, replays, and what is kept.

On a CUDA device: `tests/gpu/test_gpu_image_attention.py`.
"""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.idefics.processing_idefics import image_attention_mask_for_packed_input_ids_pt
from transformers.models.mllama.processing_mllama import get_cross_attention_token_mask

from oracles.served import answers, engine_of, requests_of
from text_generation_server.architectures.mllama import ALIASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.types import Failure, PrefillCommand, StoppingParams
from text_generation_server.images.types import PlacedImage, PreparedImage
from text_generation_server.images.views import View, views_of
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.specs.crossing import MOST_SEEN, Views

every_case = pytest.mark.parametrize("oracle", ["mllama", "idefics"], indirect=True)
IMAGE, END = 9, 2
PROMPTS = (
    [1, 9, 5, 9, 9, 9, 7, 2, 6, 9, 2, 9, 8],
    [9, 9, 2, 2, 5, 9],
    [3, 4, 9],
    [2, 9, 5, 2],
)


def shown(ids, features=3):
    places = [at for at, one in enumerate(ids) if one == IMAGE]
    return [PlacedImage(PreparedImage(None, (1, 1), (1, 1), 1, b"", features), range(at, at + 1)) for at in places]


def seen(ids, views):
    """Numbers of the images that each token sees."""
    found = []
    for at in range(len(ids)):
        last = [View(0, 0, 0), *(view for view in views if view.begin <= at)][-1]
        found.append([*range(last.first // 3, (last.first + last.size) // 3)])
    return found


@pytest.mark.parametrize("ids", PROMPTS)
def test_a_token_sees_what_transformers_lets_it_see(ids):
    masks = get_cross_attention_token_mask(ids, IMAGE)
    ends = [len(ids) if end == -1 else end for _, end in masks]
    expected = [[n for n, (start, _) in enumerate(masks) if start <= at < ends[n]] for at in range(len(ids))]
    assert seen(ids, views_of(ids, shown(ids), Views(beside=True))) == expected

    class Tokenizer:
        eos_token_id = END

        def convert_tokens_to_ids(self, token):
            return IMAGE

    mask, _ = image_attention_mask_for_packed_input_ids_pt(torch.tensor([ids]), Tokenizer())
    expected = [[number] if number >= 0 else [] for number in mask[0].tolist()]
    assert seen(ids, views_of(ids, shown(ids), Views(end=END))) == expected


@every_case
@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        ({"run_ahead": False}, {"chunk": 2}),
        ({"graphs": (1, 2, 4)}, {"chunk": 3}),
        ({"speculate": 2}, {}),
    ],
    ids=["run ahead", "chunks", "replayed", "guesses"],
)
def test_rows_with_and_without_images(oracle, settings, changes):
    reference = oracle.reference
    expected = dict(enumerate(reference.answers))
    with engine_of(oracle.load(), **settings) as engine:
        assert answers(engine, requests_of(reference, **changes)) == expected
        first = requests_of(reference)[3]  # in rows that others had, by itself
        assert answers(engine, [first]) == {3: expected[3]}
        assert not any(held.holders for held in engine.pool.features._known.values())


@every_case
def test_a_prefix_is_shared_with_the_same_images_only(oracle):
    """The second request shows what the first did; the third another image at the same place."""
    reference, model, read = oracle.reference, oracle.load(), []
    with engine_of(model) as engine:
        object.__setattr__(model.reader, "images", Noting(model.reader.images, read))
        asked = replace(requests_of(reference)[3], slots=tuple(range(100, 200)))
        for _ in range(2):
            assert answers(engine, [asked]) == {3: reference.answers[3]}
            asked = replace(asked, cache_len=len(asked.prompt_ids))
        assert len(read) == 2 and engine.pool.features.num_places
        first, second = asked.images
        swapped = replace(asked, images=(replace(second, positions=first.positions), second))
        again = answers(engine, [replace(swapped, cache_len=0, slots=tuple(range(300, 400)))])
        assert answers(engine, [swapped]) == again != {3: reference.answers[3]}


class Noting:
    def __init__(self, reader, noted):
        self._reader, self._noted = reader, noted

    def features_of(self, images):
        self._noted += [one.image.digest for one in images]
        return self._reader.features_of(images)


@every_case
def test_images_are_kept_while_a_token_may_see_them(oracle):
    """There is room for the largest image of each row, and no more."""
    reference, model = oracle.reference, oracle.load()
    most = model.states[1].per_image
    with engine_of(model, max_rows=2) as engine:
        assert engine.pool.features.num_places == 2 * most
        asked = requests_of(reference)[1]
        engine.prefill(PrefillCommand(1, (replace(asked, stopping=StoppingParams(9, ignore_eos=True)),)))
        engine.decode([1])
        (shows,) = asked.images
        large = replace(shows, image=replace(shows.image, features=2 * most, digest=b"another"))
        result = engine.prefill(PrefillCommand(1, (replace(asked, id=7, images=(large,)),), cached_batch_id=1))
        (refused,) = [one.finished for one in result.generations if one.request_id == 7]
        assert "features of images are to be kept" in refused.reason
        assert result.batch.request_ids == (asked.id,)  # goes on
        engine.clear(None)
        assert not any(held.holders for held in engine.pool.features._known.values())


def test_more_images_than_there_is_a_place_for_are_refused(oracle_of):
    oracle = oracle_of("idefics")
    asked = requests_of(oracle.reference)[1]
    image = asked.images[0].image
    many = [PlacedImage(image, range(at, at + 1)) for at in range(MOST_SEEN + 1)]
    prompt = (5,) * (MOST_SEEN + 2)
    with engine_of(oracle.load(), max_rows=40) as engine:
        plain = replace(asked, prompt_ids=prompt, images=())
        result = engine.prefill(PrefillCommand(1, (replace(plain, id=1, images=tuple(many)), plain)))
        (refused,) = [one.finished for one in result.generations if isinstance(one.finished, Failure)]
        assert f"it has {MOST_SEEN + 1} images, expected at most {MOST_SEEN}" in refused.reason


def test_files_of_other_years_call_their_parts_otherwise(oracle_of, tmp_path):
    shutil.copytree(oracle_of("mllama").directory, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    for older, newer in ALIASES:
        tensors = {newer + name.removeprefix(older) if name.startswith(older) else name: tensor
                   for name, tensor in tensors.items()}  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors")
    assert not any(name.startswith("language_model.") for name in tensors)
    options = ModelOptions(torch.float32, torch.device("cpu"))
    load_model(tmp_path, options, SingleRank(), lambda _done, _total: None)
