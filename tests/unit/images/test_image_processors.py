"""Pixels and counts against transformers' own processors, on images of many shapes.

Written for transformers 5.24, whose processors with the backend `pil` are the measure: the others need torchvision.
"""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import (
    Gemma3ImageProcessorPil,
    Idefics2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    IdeficsImageProcessorPil,
    LlavaNextImageProcessorPil,
    MllamaImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    SmolVLMImageProcessorPil,
)

from text_generation_server.errors import BadImage, UnsupportedModel
from text_generation_server.images.registry import read_family

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
SIDE = {"height": 48, "width": 48}
HALF = [0.5, 0.5, 0.5]
FAMILIES = {
    "llava_next": (
        LlavaNextImageProcessorPil(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=PINPOINTS
        ),
        {"vision_config": {"image_size": 56, "patch_size": 14}},
    ),
    "idefics": (IdeficsImageProcessorPil(image_size=48), {"vision_config": {"image_size": 48, "patch_size": 12}}),
    "idefics2": (Idefics2ImageProcessorPil(size={"shortest_edge": 30, "longest_edge": 80}), {}),
    "idefics2 split": (
        Idefics2ImageProcessorPil(size={"shortest_edge": 30, "longest_edge": 80}, do_image_splitting=True),
        {"perceiver_config": {"resampler_n_latents": 3}},
    ),
    "idefics3": (
        Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 28}),
        {"vision_config": {"patch_size": 7}, "scale_factor": 2},
    ),
    "idefics3 whole": (
        Idefics3ImageProcessorPil(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 28}, do_image_splitting=False
        ),
        {"vision_config": {"patch_size": 7}},
    ),
    "idefics3 one tile": (
        Idefics3ImageProcessorPil(size={"longest_edge": 28}, max_image_size={"longest_edge": 28}),
        {"vision_config": {"patch_size": 7}},
    ),
    "smolvlm": (
        SmolVLMImageProcessorPil(size={"longest_edge": 100}, max_image_size={"longest_edge": 32}),
        {"vision_config": {"patch_size": 8}, "scale_factor": 4},
    ),
    "paligemma": (SiglipImageProcessorPil(size=SIDE), {"vision_config": {"image_size": 48, "patch_size": 12}}),
    "gemma3": (Gemma3ImageProcessorPil(size=SIDE), {"mm_tokens_per_image": 4}),
    "mllama": (
        MllamaImageProcessorPil(size=SIDE, image_mean=[0.1, 0.5, 0.4], max_image_tiles=4),
        {"vision_config": {"image_size": 48, "patch_size": 12}},
    ),
    "qwen2_vl": (Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 20}), {}),
    "qwen2_5_vl": (Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 9), {}),
    "qwen3_vl": (
        Qwen2VLImageProcessorPil(
            size={"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 20},
            patch_size=16,
            image_mean=HALF,
            image_std=HALF,
        ),
        {},
    ),
}
RANDOM = np.random.default_rng(0)
SIZES = [(1, 150), (150, 1), (56, 56), (2, 2), *map(tuple, RANDOM.integers(2, 200, (12, 2)).tolist())]
IMAGES = [Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture(params=FAMILIES)
def pair(request, tmp_path):
    """transformers' processor, and ours by the files that it saves."""
    theirs, config = FAMILIES[request.param]
    return theirs, saved(tmp_path, request.param.split()[0], theirs.to_dict(), config).processor


def saved(folder, model_type, images, config):
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    return read_family(folder)


def refuses(ours, image):
    try:
        ours.standing(image.height, image.width)
    except BadImage:
        return True
    return False


def test_pixels_are_those_of_transformers(pair):
    theirs, ours = pair
    compared = 0
    for image in IMAGES:
        if refuses(ours, image):
            continue
        made, expected = ours.prepare(image, b""), theirs(image, return_tensors="np")
        pixels = expected if isinstance(expected, np.ndarray) else expected["pixel_values"]
        pixels = np.asarray(pixels, dtype=np.float32)
        if "num_tiles" in expected:  # without tiles that other images have
            pixels = pixels[:, :, : expected["num_tiles"][0][0]]
        pixels = pixels.reshape(-1, *pixels.shape[-3:]) if made.pixels.ndim == 4 else one_frame(pixels)
        assert made.pixels.dtype == np.float32 and np.array_equal(made.pixels, pixels), image.size
        assert made.original == (image.height, image.width)
        compared += 1
    assert compared >= len(IMAGES) - 2  # of all but those that are too thin to be cut in four


def one_frame(patches):
    """Qwen2-VL's patches with one of two equal frames."""
    frames = patches.reshape(len(patches), 3, 2, -1)
    assert np.array_equal(frames[:, :, 0], frames[:, :, 1])
    return frames[:, :, 0].reshape(len(patches), -1)


def test_grids_and_what_they_count(tmp_path):
    def ours(name):
        theirs, config = FAMILIES[name]
        return theirs, saved(tmp_path, name.split()[0], theirs.to_dict(), config).processor

    for image in IMAGES[2:]:
        theirs, processor = ours("idefics3")
        made, expected = processor.prepare(image, b""), theirs(image, return_row_col_info=True)
        assert made.grid == (expected["rows"][0][0], expected["cols"][0][0])
        assert made.tokens == len(made.pixels) * 4
        theirs, processor = ours("idefics2 split")
        made, mask = processor.prepare(image, b""), theirs(image, return_tensors="np")["pixel_attention_mask"][0]
        shown = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in mask]
        assert list(zip(made.grid[::2], made.grid[1::2], strict=True)) == shown and made.tokens == 15
        theirs, processor = ours("mllama")
        made, expected = processor.prepare(image, b""), theirs(image)
        shapes = [(rows, columns) for rows in range(1, 5) for columns in range(1, 5) if rows * columns <= 4]
        assert shapes.index(made.grid) + 1 == expected["aspect_ratio_ids"][0][0]
        assert (made.tokens, made.features) == (1, len(made.pixels) * 17)
        theirs, processor = ours("qwen2_vl")
        made, grid = processor.prepare(image, b""), theirs(image, return_tensors="np")["image_grid_thw"][0]
        assert made.grid == tuple(grid) and made.tokens == grid.prod() // 4


def test_equal_digests_mean_equal_files_by_equal_rules(tmp_path):
    theirs, config = FAMILIES["gemma3"]
    family = saved(tmp_path, "gemma3", theirs.to_dict(), config)
    first, again, other = (family.processor.prepare(IMAGES[2], source).digest for source in (b"a", b"a", b"b"))
    assert first == again != other
    changed = saved(tmp_path, "gemma3", theirs.to_dict() | {"image_mean": [0.1, 0.5, 0.5]}, config)
    assert changed.processor.prepare(IMAGES[2], b"a").digest != first


def test_where_transformers_5_writes_it(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": SIDE}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    family = read_family(tmp_path)
    assert (family.processor.height, family.processor.features) == (48, 256)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert read_family(tmp_path) is None


@pytest.mark.parametrize(
    ("model_type", "images", "config", "named"),
    [
        ("gemma3", {"do_pan_and_scan": True}, {}, "do_pan_and_scan is True"),
        ("gemma3", {"do_normalize": False}, {}, "do_normalize is False"),
        ("gemma3", {"image_mean": [0.5]}, {}, "image_mean is"),
        ("paligemma", {"resample": 9}, {}, "resample is 9"),
        ("idefics2", {"size": {"longest_edge": 0}}, {}, "longest_edge is 0"),
        ("llava_next", {"size": {"shortest_edge": 224}}, {}, "shortest_edge is 224, expected 336"),
        ("llava_next", {"image_grid_pinpoints": [[1]]}, {}, "image_grid_pinpoints"),
        ("idefics", {"image_size": 48}, {}, "image_size is 48, expected 224"),
        ("mllama", {"max_image_tiles": 2}, {}, "max_image_tiles is 2, expected 4"),
        ("mllama", {"size": {"height": 224}}, {}, "height is 224, expected 448"),
        ("llava_next", {}, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
    ],
)
def test_what_is_not_done_is_refused_by_name(tmp_path, model_type, images, config, named):
    with pytest.raises(UnsupportedModel, match=named):
        saved(tmp_path, model_type, images, config)


def test_shapes_that_a_model_cannot_have(tmp_path):
    qwen, idefics = saved(tmp_path, "qwen2_vl", {}, {}), saved(tmp_path, "idefics2", {"do_image_splitting": True}, {})
    with pytest.raises(BadImage, match="it is 1x300 pixels, one side more than 200 times the other"):
        qwen.processor.standing(300, 1)
    with pytest.raises(BadImage, match="it is 1x300 pixels, expected at least 2x2"):
        idefics.processor.standing(300, 1)
