"""Makes a case's model with transformers, saves it, and asks it for reference answers."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from oracles.case import VOCAB_SIZE, Case, unchanged
from oracles.driver import source_of
from oracles.pictures import placed
from text_generation_server.images.types import PlacedImage

PROMPT_LENS = (5, 17, 1, 11)
ANSWER_LEN = 24
SEED = 11
"""With it no case's answers repeat one token, as some random models' do."""


@dataclass(frozen=True)
class Reference:
    """Prompts, greedy answers, and the logits [len(prompt) + ANSWER_LEN, vocab] that follow each position.

    images: of each prompt. features: of each image of each prompt [tokens, hidden].
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    logits: list[Tensor]
    images: list[list[PlacedImage]]
    features: list[list[Tensor]]

    @property
    def spans(self) -> list[int]:
        """The length of each sequence."""
        return [len(prompt) + ANSWER_LEN for prompt in self.prompts]

    @property
    def sequences(self) -> list[list[int]]:
        """Prompts with their answers."""
        return [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]


def build(case: Case, directory: Path) -> Reference:
    """Save the case's model, every parameter random, and return what transformers answers."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(case.model_type, **case.config)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if case.pictures is not None:
        kind = AutoModelForImageTextToText
    model = kind.from_config(config, attn_implementation=case.attention, dtype=torch.float32).eval()
    randomise(model, case.plain_norms)
    if case.pictures is not None:
        with torch.no_grad():  # an answer with it would ask transformers for one image more
            model.get_output_embeddings().weight[case.pictures.token : case.pictures.token + 1] = 0.0
    model.save_pretrained(directory, max_shard_size=case.shards)
    if case.checkpoint is not unchanged:
        file = directory / "model.safetensors"
        changed = case.checkpoint(load_file(file))
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, file)
    if case.written is not None:
        (directory / "config.json").write_text(json.dumps(case.written))
    return _ask(model, case)


def randomise(model: torch.nn.Module, plain_norms: bool) -> None:
    """A fresh model's norms are 1 and its biases 0, which would hide half of all mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.35 if parameter.dim() > 1 else 0.1)
            if plain_norms and _is_norm(name, parameter):
                parameter.add_(1.0)


def _is_norm(name: str, parameter: Tensor) -> bool:
    *_, module, kind = name.split(".")
    return kind == "weight" and (parameter.dim() == 1 or "norm" in module)


@torch.inference_mode()
def _ask(model: Any, case: Case) -> Reference:
    """Greedy answers. Every forward has the final length: transformers lets some rotations depend on it."""
    drawn = random.Random(0)
    prompts = [[drawn.randrange(3, VOCAB_SIZE) for _ in range(count)] for count in PROMPT_LENS]
    answers, logits, images, features = [], [], [], []
    for row, prompt in enumerate(prompts):
        shown: list[PlacedImage] = []
        if case.pictures is not None:
            prompts[row], shown = prompt, _ = placed(model, case.pictures, prompt, row)
        images.append(shown)
        prepared = [one.image for one in shown]
        features.append(case.pictures.features(model, prepared) if case.pictures and shown else [])
        source = torch.tensor([source_of(row)]) if model.config.is_encoder_decoder else None
        ask = case.forward if source is None else partial(_decoded_logits, source)
        if case.pictures is not None:
            ask = partial(case.pictures.logits, prepared, len(prompt))
            case.pictures.logits([], 1, model, torch.tensor([[0]]))
        else:
            ask(model, torch.tensor([[0]]))  # takes a rotation that grew with the last prompt back
        tokens = list(prompt)
        for _ in range(ANSWER_LEN):
            tokens.append(int(_padded_logits(model, ask, prompt, tokens)[-1].argmax()))
        answers.append(tokens[len(prompt) :])
        logits.append(_padded_logits(model, ask, prompt, tokens))
    assert len({token for answer in answers for token in answer}) > 3, "an answer of one token shows little"
    return Reference(prompts, answers, logits, images, features)


def _decoded_logits(source: Tensor, model: Any, token_ids: Tensor) -> Tensor:
    """What a model answers to [1, T] tokens of its decoder, whose encoder reads the source [1, S]: [T, vocab]."""
    logits: Tensor = model(source, decoder_input_ids=token_ids, use_cache=False).logits[0]
    return logits


def _padded_logits(model: Any, ask: Callable[[Any, Tensor], Tensor], prompt: list[int], tokens: list[int]) -> Tensor:
    """[len(tokens), vocab]: attention is causal, so that what follows the tokens has no part in their logits."""
    padding = [0] * (len(prompt) + ANSWER_LEN - len(tokens))
    return ask(model, torch.tensor([tokens + padding]))[: len(tokens)]
