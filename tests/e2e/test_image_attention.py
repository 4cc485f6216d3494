"""Pictures over HTTP for layers that attend to them: tiny Llama 3.2 Vision and Idefics, that answer as transformers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, IdeficsImageProcessorPil, MllamaImageProcessorPil

from conformance.made_tokenizers import BOS, EOS, byte_level
from e2e.test_images import NEW, TALL, WIDE, png
from oracles.build import randomise
from oracles.cases import idefics, mllama
from oracles.pictures import Pictures
from text_generation_server.images.registry import read_family

FIRST, IMAGE, SIDE = EOS + 1, EOS + 2, 28
"""Tokens behind those of bytes: what prompts with images begin with, or what is around images; and an image's."""

LAYERS = {"intermediate_size": 40, "num_hidden_layers": 3}
TEXT = {
    **LAYERS, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 512, "bos_token_id": BOS,
    "eos_token_id": EOS, "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
TOWER = {**LAYERS, "image_size": SIDE, "patch_size": 14}


@dataclass(frozen=True)
class Family:
    """special: tokens FIRST and IMAGE. ids: of a prompt with images. written: changes what transformers has saved."""

    config: dict[str, Any]
    special: tuple[str, str]
    processor: Any
    pictures: Pictures
    ids: Callable[[list[int]], list[int]]
    written: Callable[[dict[str, Any]], None] = lambda saved: None


def begun(ids: list[int]) -> list[int]:
    """Behind the images that stand first."""
    leading = next((at for at, one in enumerate(ids) if one != IMAGE), len(ids))
    return [*ids[:leading], FIRST, *ids[leading:]]


def fenced(ids: list[int]) -> list[int]:
    """Images between fences, one between two, and no spaces around them."""
    found = [BOS]
    for one in ids:
        if one == IMAGE:
            while found[-1] == ord(" "):
                found.pop()
            found += [IMAGE, FIRST] if found[-1] == FIRST else [FIRST, IMAGE, FIRST]
        elif one != ord(" ") or found[-1] != FIRST:
            found.append(one)
    return found


def shifted(saved: dict[str, Any]) -> None:
    """See `oracles/cases/mllama.py`."""
    saved["vision_config"]["intermediate_layers_indices"] = [1]


FAMILIES = {
    "mllama": Family(
        {
            "text_config": {**TEXT, "vocab_size": IMAGE, "num_key_value_heads": 2, "cross_attention_layers": [1]},
            "vision_config": {
                **TOWER, "hidden_size": 24, "num_global_layers": 1, "attention_heads": 4, "vision_output_dim": 48,
                "intermediate_layers_indices": [0],
            },
            "image_token_index": IMAGE,
        },
        ("<|begin_of_text|>", "<|image|>"),
        MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        mllama.Seen(IMAGE, mllama.draw, mllama.given),
        begun,
        shifted,
    ),
    "idefics": Family(
        {
            **TEXT, "vocab_size": FIRST, "additional_vocab_size": 2, "alpha_initializer": "ones", "use_resampler": True,
            "vision_config": {**TOWER, "embed_dim": 24, "num_attention_heads": 4},
            "perceiver_config": {
                "use_resampler": True, "resampler_n_latents": 6, "resampler_depth": 1, "resampler_n_heads": 4,
                "resampler_head_dim": 8,
            },
        },
        ("<fake_token_around_image>", "<image>"),
        IdeficsImageProcessorPil(image_size=SIDE),
        idefics.LastSeen(IMAGE, idefics.draw, idefics.given),
        fenced,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Family]:
    """A directory, and transformers' model of it."""
    directory, family = tmp_path_factory.mktemp(request.param), FAMILIES[request.param]
    torch.manual_seed(5)
    config = AutoConfig.for_model(request.param, **family.config)
    made = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    randomise(made, plain_norms=True)
    made.save_pretrained(directory)
    written = json.loads((directory / "config.json").read_text())
    family.written(written)
    (directory / "config.json").write_text(json.dumps(written))
    tokenizer = tokenizers.Tokenizer.from_file(str(byte_level(directory) / "tokenizer.json"))
    tokenizer.add_special_tokens([*family.special])
    tokenizer.save(str(directory / "tokenizer.json"))
    family.processor.save_pretrained(directory)
    return directory, made, family


@torch.inference_mode()
def expected(model: tuple[Path, Any, Family], *parts: str | Image.Image) -> tuple[list[int], int]:
    """The tokens of a greedy answer, and of how many its prompt is."""
    directory, made, family = model
    ours = read_family(directory)
    assert ours is not None
    images = [ours.processor.prepare(part, b"") for part in parts if isinstance(part, Image.Image)]
    ids = [one for part in parts for one in (part.encode() if isinstance(part, str) else [IMAGE])]
    ids = family.ids(ids) if images else [BOS, *ids]
    answer: list[int] = []
    while len(answer) < NEW:
        logits = family.pictures.logits(images, len(ids), made, torch.tensor([ids + answer]))
        answer.append(int(logits[-1].argmax()))
    return answer, len(ids)


def test_layers_attend_to_pictures(launch, model):
    running = launch("--dtype", "float32", "--enable-prefill-logprobs", model=str(model[0]))
    long = "and what is it that they have in common?"
    for parts in (("Look: ", WIDE, " what?"), (TALL, WIDE, long), ("See ", TALL, " and ", WIDE, long), ("none",)):
        text = "".join(part if isinstance(part, str) else f"![]({png(part)})" for part in parts)
        tokens, prompt = expected(model, *parts)
        for scored in (True, False):  # the second time of what the first has left
            asked = {"max_new_tokens": NEW, "details": True, "ignore_eos": True, "decoder_input_details": scored}
            answer = httpx.post(f"{running.url}/generate", json={"inputs": text, "parameters": asked}, timeout=60)
            told = answer.raise_for_status().json()["details"]
            assert [token["id"] for token in told["tokens"]] == tokens
            assert int(answer.headers["x-prompt-tokens"]) == prompt
            assert len(told["prefill"]) == (prompt if scored else 0)
    assert "tgi_prefix_cache_hit_tokens 0\n" not in httpx.get(f"{running.url}/metrics").text
    assert running.stop() == 0
