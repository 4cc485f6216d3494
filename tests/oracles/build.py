"""Makes a case's model with transformers, saves it, and asks it for reference answers."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from oracles.cases import VOCAB_SIZE, Case

PROMPT_LENS = (5, 17, 1, 11)
ANSWER_LEN = 24
SEED = 11
"""With it no case's answers repeat one token, as some random models' do."""


@dataclass(frozen=True)
class Reference:
    """Prompts, greedy answers, and the logits [len(prompt) + ANSWER_LEN, vocab] that follow each position."""

    prompts: list[list[int]]
    answers: list[list[int]]
    logits: list[Tensor]

    @property
    def sequences(self) -> list[list[int]]:
        """Prompts with their answers."""
        return [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]


def build(case: Case, directory: Path) -> Reference:
    """Save the case's model, every parameter random, and return what transformers answers."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(case.model_type, **case.config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=case.attention, dtype=torch.float32).eval()
    _randomise(model, case.plain_norms)
    model.save_pretrained(directory, max_shard_size=case.shards)
    _rename(directory / "model.safetensors", case)
    return _ask(model)


def _randomise(model: torch.nn.Module, plain_norms: bool) -> None:
    """A fresh model's norms are 1 and its biases 0, which would hide half of all mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.35 if parameter.dim() > 1 else 0.1)
            if parameter.dim() == 1 and name.endswith("weight") and plain_norms:
                parameter.add_(1.0)


def _rename(file: Path, case: Case) -> None:
    if file.exists():
        tensors = load_file(file)
        save_file({case.rename(name): tensor for name, tensor in tensors.items()}, file)


@torch.inference_mode()
def _ask(model: torch.nn.Module) -> Reference:
    source = random.Random(0)
    prompts = [[source.randrange(3, VOCAB_SIZE) for _ in range(count)] for count in PROMPT_LENS]
    answers, logits = [], []
    for prompt in prompts:
        tokens = list(prompt)
        for _ in range(ANSWER_LEN):
            tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
        answers.append(tokens[len(prompt) :])
        logits.append(model(torch.tensor([tokens]), use_cache=False).logits[0])
    assert len({token for answer in answers for token in answer}) > 3, "an answer of one token shows little"
    return Reference(prompts, answers, logits)
