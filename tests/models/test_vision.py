"""What towers, projectors and packing make of images, against transformers in float32."""

import pytest
import torch

from oracles.table import CASES
from text_generation_server.serve import shares_prefixes, takes_chunks

every_case = pytest.mark.parametrize("oracle", [case.name for case in CASES if case.pictures], indirect=True)


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
            torch.testing.assert_close(reader.read(image), features, atol=1e-4, rtol=0.0)
