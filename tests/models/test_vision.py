"""What towers, projectors and packing make of images, against transformers in float32."""

import pytest
import torch

from oracles.table import CASES

every_case = pytest.mark.parametrize("oracle", [case.name for case in CASES if case.pictures], indirect=True)


@every_case
def test_features_of_each_image(oracle):
    """Images of one and of several tiles, one by one."""
    reader = oracle.load().reader
    shown = [image.image for images in oracle.reference.images for image in images]
    expected = [features for images in oracle.reference.features for features in images]
    assert len(shown) == 4
    with torch.inference_mode():
        for image, features in zip(shown, expected, strict=True):
            assert len(features) == image.tokens
            torch.testing.assert_close(reader.read(image), features, atol=1e-4, rtol=0.0)
