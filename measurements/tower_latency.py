"""Times what reads images at the sizes of real models, with random weights: from pixels on the host to features.

    PYTHONPATH=server python measurements/tower_latency.py llava-next gemma3 --images 1 16

Beside it, in the same run, the tower alone on pixels that are on the device already, and the most memory that takes.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from text_generation_server.cache.states import allocate
from text_generation_server.distributed.group import SingleRank
from text_generation_server.images.types import PreparedImage
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ImageInput
from text_generation_server.models.vision.reading import ImageReader

REPEATS = 8

CLIP_L = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24, "patch_size": 14,
}  # fmt: skip
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
LLAMA = {"vocab_size": 4096, "num_hidden_layers": 1, "hidden_size": 4096, "intermediate_size": 11008}

MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, int], tuple[int, ...], int]] = {
    "llava-next": (
        {"model_type": "llava_next", "text_config": {"model_type": "llama", **LLAMA}, "vision_config": CLIP_L},
        (5, 3, 336, 336), (672, 672), (2, 2), 576 + 48 * 49,
    ),
    "gemma3": (
        {
            "model_type": "gemma3", "vision_config": {**SIGLIP, "image_size": 896, "patch_size": 14},
            "text_config": {**LLAMA, "model_type": "gemma3_text", "hidden_size": 2560},
        },
        (1, 3, 896, 896), (896, 896), (1, 1), 256,
    ),
    "smolvlm": (
        {
            "model_type": "smolvlm", "vision_config": {**SIGLIP, "image_size": 384, "patch_size": 14},
            "text_config": {**LLAMA, "hidden_size": 2048}, "scale_factor": 3,
        },
        (13, 3, 384, 384), (1152, 1536), (3, 4), 13 * 81,
    ),
    "qwen2.5-vl": (
        {
            "model_type": "qwen2_5_vl", **LLAMA, "hidden_size": 3584, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
        },
        (48 * 48, 3 * 14 * 14), (672, 672), (1, 48, 48), 24 * 24,
    ),
}  # fmt: skip
"""config.json with one layer of text, and an image's pixels, height and width, grid and positions."""


def best(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of the fastest of several runs."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def alone_of(reader: ImageReader, pixels: Tensor, grid: tuple[int, ...], count: int) -> Callable[[], object]:
    """The tower on so many images with these pixels, as many at once as a reader takes."""
    if reader.arranging is None:
        tiles = torch.split(pixels.repeat(count, 1, 1, 1), reader.tiles)
        return lambda: [reader.tower(some) for some in tiles]
    arrangement = reader.arranging(*grid[-2:])
    packed = torch.split(pixels.repeat(count, 1, 1), reader.tiles // len(pixels))
    return lambda: [reader.tower(some, arrangement) for some in packed]


@torch.inference_mode()
def measure(name: str, counts: list[int], device: torch.device, dtype: torch.dtype) -> None:
    """Print a line for each number of images."""
    config, pixels, original, grid, tokens = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        options = ModelOptions(dtype, device, random_weights=True)
        model = load_model(Path(folder), options, SingleRank(), lambda _done, _total: None)
    reader, states = cast(ImageReader, model.reader), allocate(model.states, 64, 4, 64)
    random = np.random.default_rng(0).normal(size=pixels).astype(np.float32)
    image = PreparedImage(random, original, grid, tokens, b"")
    for count in counts:
        images = [ImageInput(image, np.arange(at * tokens, (at + 1) * tokens)) for at in range(count)]
        tower = alone_of(reader, torch.from_numpy(random).to(device, dtype), grid, count)
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        whole = best(lambda images=images: reader(images, states), device)  # type: ignore[misc]
        alone = best(tower, device)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if device.type == "cuda" else 0.0
        print(f"{name:12} {count:3} images of {tokens} positions: {whole:8.2f} ms, {peak:.0f} MiB")
        print(f"{'':12} tower alone: {alone:8.2f} ms")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--images", nargs="+", type=int, default=[1, 8])
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    device, dtype = (torch.device("cuda"), torch.bfloat16) if cuda else (torch.device("cpu"), torch.float32)
    print(torch.cuda.get_device_name() if cuda else "CPU", dtype)
    for name in arguments.models:
        measure(name, arguments.images, device, dtype)


if __name__ == "__main__":
    main()
