"""Pictures over HTTP: a tiny LLaVA-NeXT as transformers saves it, whose answers are transformers' own."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, LlavaNextConfig, LlavaNextImageProcessorPil

from conformance.made_tokenizers import BOS, EOS, byte_level
from oracles.build import randomise

IMAGE = EOS + 1
SIDE, GRIDS = 28, [[28, 56], [56, 28], [56, 56]]
TEXT = {
    "model_type": "llama", "vocab_size": IMAGE + 1, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": EOS,
}  # fmt: skip
TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": SIDE, "patch_size": 7,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}"
    "{% endfor %}{% endfor %}"
)
NEW = 8


def drawn(width: int, height: int, colour: tuple[int, int, int]) -> Image.Image:
    """A colour that gets darker to the right, half of it turned around."""
    picture = Image.linear_gradient("L").rotate(90).resize((width, height))
    return Image.merge("RGB", [picture.point(lambda value, most=most: value * most // 255) for most in colour])


WIDE, TALL = drawn(90, 40, (255, 80, 10)), drawn(33, 70, (20, 200, 250))


def png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A directory, transformers' model of it and its processor of images."""
    directory = tmp_path_factory.mktemp("llava")
    torch.manual_seed(3)
    config = LlavaNextConfig(
        text_config=TEXT, vision_config=TOWER, image_grid_pinpoints=GRIDS, image_token_index=IMAGE, eos_token_id=EOS
    )
    made = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    randomise(made, plain_norms=True)
    made.save_pretrained(directory)
    tokenizer = tokenizers.Tokenizer.from_file(str(byte_level(directory) / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRIDS
    )
    processor.save_pretrained(directory)
    return directory, made, processor


@torch.inference_mode()
def expected(model: tuple[Path, Any, Any], *parts: str | Image.Image) -> tuple[list[int], int]:
    """The tokens of a greedy answer, and of how many its prompt is."""
    _, made, processor = model
    pictures = [part for part in parts if isinstance(part, Image.Image)]
    shown = dict(processor(pictures, return_tensors="pt")) if pictures else {}
    counts = iter([len(one) for one in made.get_image_features(**shown).pooler_output] if pictures else [])
    ids = [BOS]
    for part in parts:
        ids += part.encode() if isinstance(part, str) else [IMAGE] * next(counts)
    answer: list[int] = []
    while len(answer) < NEW:
        logits = made(torch.tensor([ids + answer]), **shown, use_cache=False).logits[0, -1]
        answer.append(int(logits.argmax()))
    return answer, len(ids)


def test_pictures_are_seen_as_transformers_sees_them(launch, model):
    running = launch("--dtype", "float32", model=str(model[0]))
    for parts in (("Look: ", WIDE, " what?"), ("Look: ", TALL, " what?"), (TALL, WIDE, "both"), ("none",)):
        text = "".join(part if isinstance(part, str) else f"![]({png(part)})" for part in parts)
        body = {"inputs": text, "parameters": {"max_new_tokens": NEW, "details": True, "ignore_eos": True}}
        for _ in range(2):  # the second time of what the first has left
            answer = httpx.post(f"{running.url}/generate", json=body, timeout=60).raise_for_status()
            tokens, prompt = expected(model, *parts)
            told = [token["id"] for token in answer.json()["details"]["tokens"]]
            assert (told, int(answer.headers["x-prompt-tokens"])) == (tokens, prompt)
    content = [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": png(WIDE)}}]
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": NEW, "logprobs": True}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=chat, timeout=60).raise_for_status().json()
    _, prompt = expected(model, "Look: ", WIDE)
    assert answer["usage"]["prompt_tokens"] == prompt - 1  # chats begin as their template says
    assert "tgi_prefix_cache_hit_tokens 0\n" not in httpx.get(f"{running.url}/metrics").text
    broken = {"inputs": "![](data:image/png;base64,AAAA)", "parameters": {"max_new_tokens": 1}}
    assert httpx.post(f"{running.url}/generate", json=broken, timeout=60).status_code == 422
    assert running.stop() == 0
