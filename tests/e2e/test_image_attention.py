"""Pictures over HTTP for layers that attend to them: a tiny Llama 3.2 Vision, whose answers are transformers' own."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, MllamaImageProcessorPil

from conformance.made_tokenizers import BOS, EOS, byte_level
from e2e.test_images import NEW, TALL, WIDE, png
from oracles.build import randomise
from oracles.cases.mllama import Seen, given
from text_generation_server.images.registry import read_family

BEGIN, IMAGE, SIDE = EOS + 1, EOS + 2, 28
SIZES = {"intermediate_size": 40, "num_hidden_layers": 3}
TEXT = {
    **SIZES, "vocab_size": IMAGE, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "cross_attention_layers": [1], "max_position_embeddings": 512, "bos_token_id": BOS, "eos_token_id": EOS,
    "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
TOWER = {
    **SIZES, "hidden_size": 24, "num_global_layers": 1, "attention_heads": 4, "image_size": SIDE, "patch_size": 14,
    "vision_output_dim": 48, "intermediate_layers_indices": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A directory, and transformers' model of it."""
    directory = tmp_path_factory.mktemp("mllama")
    torch.manual_seed(5)
    config = AutoConfig.for_model("mllama", text_config=TEXT, vision_config=TOWER, image_token_index=IMAGE)
    made = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    randomise(made, plain_norms=True)
    made.save_pretrained(directory)
    written = json.loads((directory / "config.json").read_text())
    written["vision_config"]["intermediate_layers_indices"] = [1]  # see `oracles/cases/mllama.py`
    (directory / "config.json").write_text(json.dumps(written))
    tokenizer = tokenizers.Tokenizer.from_file(str(byte_level(directory) / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|image|>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(directory)
    return directory, made


@torch.inference_mode()
def expected(model: tuple[Path, Any], *parts: str | Image.Image) -> tuple[list[int], int]:
    """The tokens of a greedy answer, and of how many its prompt is."""
    directory, made = model
    family = read_family(directory)
    assert family is not None
    pictures = [part for part in parts if isinstance(part, Image.Image)]
    images = [family.processor.prepare(picture, b"") for picture in pictures]
    ids = [IMAGE if isinstance(part, Image.Image) else byte for part in parts for byte in _bytes(part)]
    leading = next((at for at, one in enumerate(ids) if one != IMAGE), len(ids))
    ids.insert(leading, BEGIN if pictures else BOS)
    answer: list[int] = []
    while len(answer) < NEW:
        logits = Seen(IMAGE, None, given).logits(images, len(ids), made, torch.tensor([ids + answer]))
        answer.append(int(logits[-1].argmax()))
    return answer, len(ids)


def _bytes(part: str | Image.Image) -> bytes:
    return part.encode() if isinstance(part, str) else b"."


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
            assert all(one["logprob"] is None for one in told["prefill"] if one["id"] == IMAGE)
    assert "tgi_prefix_cache_hit_tokens 0\n" not in httpx.get(f"{running.url}/metrics").text
    assert running.stop() == 0
