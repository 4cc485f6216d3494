"""Pictures over HTTP: tiny models as transformers saves them, whose answers are transformers' own."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    LlavaNextConfig,
    LlavaNextImageProcessorPil,
    Qwen2_5_VLConfig,
    Qwen2VLImageProcessorPil,
)

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
    "{% if part.type == 'text' %}{{ part.text }}{% else %}MARK{% endif %}"
    "{% endfor %}{% endfor %}"
)
NEW = 8


@dataclass(frozen=True)
class Family:
    """tokens: what features stand for, and what is in front of them and behind where anything is. marks: how
    transformers' model is told which tokens are an image's, if it is.
    """

    config: Any
    processor: Any
    tokens: Sequence[str]
    marks: str = ""

    @property
    def mark(self) -> str:
        """What a template has for an image."""
        token, *around = self.tokens
        return token.join(around) if around else token

    def standing(self, features: int) -> list[int]:
        """The ids of an image."""
        inside = [IMAGE] * features
        return [IMAGE + 1, *inside, IMAGE + 2] if len(self.tokens) > 1 else inside


def llava_next() -> Family:
    config = LlavaNextConfig(
        text_config=TEXT, vision_config=TOWER, image_grid_pinpoints=GRIDS, image_token_index=IMAGE, eos_token_id=EOS
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size, image_grid_pinpoints=GRIDS)
    return Family(config, processor, ["<image>"])


def qwen2_5_vl() -> Family:
    turned = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 1]}
    tower = {
        "depth": 2, "num_heads": 4, "hidden_size": 48, "out_hidden_size": 32, "intermediate_size": 40,
        "window_size": 2 * SIDE, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "model_type": "qwen2_5_vl_text", "vocab_size": IMAGE + 3, "rope_parameters": turned},
        vision_config=tower, image_token_id=IMAGE, vision_start_token_id=IMAGE + 1, vision_end_token_id=IMAGE + 2,
        eos_token_id=EOS,
    )  # fmt: skip
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": SIDE**2, "longest_edge": 12 * SIDE**2})
    tokens = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
    return Family(config, processor, tokens, marks="mm_token_type_ids")


@dataclass(frozen=True)
class Served:
    """A directory, and transformers' model of it."""

    family: Family
    directory: Path
    model: Any


def drawn(width: int, height: int, colour: tuple[int, int, int]) -> Image.Image:
    """A colour that gets darker to the right, half of it turned around."""
    picture = Image.linear_gradient("L").rotate(90).resize((width, height))
    return Image.merge("RGB", [picture.point(lambda value, most=most: value * most // 255) for most in colour])


WIDE, TALL = drawn(90, 40, (255, 80, 10)), drawn(33, 70, (20, 200, 250))


def png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module", params=[llava_next, qwen2_5_vl], ids=lambda family: family.__name__)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A tiny model with random weights, saved with all that its family has beside them."""
    family, directory = request.param(), tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    made = AutoModelForImageTextToText.from_config(family.config, attn_implementation="eager").eval()
    randomise(made, plain_norms=True)
    made.get_output_embeddings().weight.data[IMAGE:] = 0.0  # an answer with those would ask for one image more
    made.save_pretrained(directory)
    tokenizer = tokenizers.Tokenizer.from_file(str(byte_level(directory) / "tokenizer.json"))
    tokenizer.add_special_tokens(family.tokens)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    template = TEMPLATE.replace("MARK", family.mark)
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    family.processor.save_pretrained(directory)
    return Served(family, directory, made)


@torch.inference_mode()
def expected(served: Served, *parts: str | Image.Image) -> tuple[list[int], int]:
    """The tokens of a greedy answer, and of how many its prompt is."""
    family, made = served.family, served.model
    pictures = [part for part in parts if isinstance(part, Image.Image)]
    shown = dict(family.processor(pictures, return_tensors="pt")) if pictures else {}
    counts = iter([len(one) for one in made.get_image_features(**shown).pooler_output] if pictures else [])
    ids = [BOS]
    for part in parts:
        ids += part.encode() if isinstance(part, str) else family.standing(next(counts))
    answer: list[int] = []
    while len(answer) < NEW:
        tokens = torch.tensor([ids + answer])
        told = {family.marks: (tokens == IMAGE).int()} if family.marks else {}
        logits = made(tokens, **shown, **told, use_cache=False).logits[0, -1]
        answer.append(int(logits.argmax()))
    return answer, len(ids)


def test_pictures_are_seen_as_transformers_sees_them(launch, model):
    running = launch("--dtype", "float32", model=str(model.directory))
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
