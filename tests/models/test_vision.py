"""What towers, projectors and packing make of images, against transformers in float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mocks.byte_tokenizer import ByteTokenizer
from mocks.guessing import AlwaysGuess
from mocks.plain_recorder import PlainRecorder
from oracles.build import ANSWER_LEN
from oracles.pictures import Pictures
from oracles.table import CASES
from text_generation_server.cache.states import allocate
from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.models.step import ImageInput
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.serve import shares_prefixes, takes_chunks

every_case = pytest.mark.parametrize("oracle", [case.name for case in CASES if case.pictures], indirect=True)
at_positions = pytest.mark.parametrize(
    "oracle", [case.name for case in CASES if type(case.pictures) is Pictures], indirect=True
)


def test_prompts_that_see_all_of_themselves_are_neither_cut_nor_shared(oracle_of):
    shared = {}
    for name in ("llava-next", "gemma3-images", "paligemma"):
        model = oracle_of(name).load()
        shared[name] = shares_prefixes(model), takes_chunks(model)
    assert shared == {"llava-next": (True, True), "gemma3-images": (True, True), "paligemma": (False, False)}


@every_case
def test_features_of_each_image(oracle):
    """Images of one and of several tiles, one by one."""
    reader = oracle.load().reader
    shown = [image.image for images in oracle.reference.images for image in images]
    expected = [features for images in oracle.reference.features for features in images]
    assert len(shown) == 4
    with torch.inference_mode():
        for image, features in zip(shown, expected, strict=True):
            assert len(features) == image.kept
            rounding = max(1e-4, 5e-6 * float(features.abs().max()))
            torch.testing.assert_close(reader.read(image), features, atol=rounding, rtol=0.0)


@at_positions
def test_images_of_one_size_are_read_together(oracle):
    model, image = oracle.load(), oracle.reference.images[1][0].image
    other = replace(image, pixels=np.ascontiguousarray(image.pixels[..., ::-1]))
    states, places = allocate(model.states, 1, 1, 1), np.arange(2 * image.tokens)
    with torch.inference_mode():
        model.reader([ImageInput(image, places[::2]), ImageInput(other, places[1::2])], states)
        for first, one in enumerate((image, other)):
            features, found = model.reader.read(one), states[-1].pool[first : 2 * image.tokens : 2]
            torch.testing.assert_close(found, features, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(features, model.reader.read(image), atol=0.1)


@pytest.mark.parametrize(("name", "graphs"), [("qwen2_5_vl", ()), ("qwen2_5_vl", (1, 4)), ("qwen3_vl", (1, 4))])
def test_coordinates_follow_chunks_prefixes_guesses_and_replays(oracle_of, name, graphs):
    """The same requests in turn, the second time in slots that hold all but the last token of each prompt."""
    oracle = oracle_of(name)
    reference = oracle.reference
    settings = EngineSettings(
        max_rows=8, block_size=1, run_ahead=True, memory_fraction=0.1, position_limit=128, speculate=2, graphs=graphs,
        feature_places=lambda rows: 64,
    )  # fmt: skip
    runner = Runner(oracle.load(), SingleRank(), ThreadStream(), PlainRecorder)
    engine = Engine(runner, ByteTokenizer(), settings, guessing=AlwaysGuess())
    engine.resize(256, 64, graphs)
    for cached in (False, True):
        told: dict[int, list[int]] = {row: [] for row in range(4)}
        requests = [
            Request(
                row, tuple(prompt), SamplingParams(), StoppingParams(ANSWER_LEN, ignore_eos=True), chunk=5,
                slots=tuple(range(64 * row, 64 * row + reference.spans[row])),
                images=tuple(images), cache_len=cached * (len(prompt) - 1),
            )
            for row, (prompt, images) in enumerate(zip(reference.prompts, reference.images, strict=True))
        ]  # fmt: skip
        result = engine.prefill(PrefillCommand(1, tuple(requests)))
        while True:
            for generation in result.generations:
                told[generation.request_id] += generation.tokens.ids
            if result.batch is None:
                break
            result = engine.decode([1])
        assert [told[row] for row in range(4)] == reference.answers
    engine.runner.close()
