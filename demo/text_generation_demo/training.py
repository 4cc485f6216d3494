"""Trains a LoRA adapter on a few examples, on a CPU, and saves it as PEFT does. Knows neither servers nor terminals.

Only the linears of the last layers get a pair of matrices: what the others make of an example is computed once, and no
gradient flows there.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IGNORED = -100
"""The label of tokens that are not learned: those of the question."""

Report = Callable[[int, float], None]
"""Told of every step: its number and its loss."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained. layers: adapted ones, the last. batch: examples of a step."""

    rank: int = 8
    alpha: float = 16.0
    layers: int = 8
    steps: int = 40
    batch: int = 4
    rate: float = 1.5e-3


@dataclass(frozen=True, slots=True)
class Example:
    """tokens: [T], a question and its answer. labels: [T], the tokens of the answer, `IGNORED` before them."""

    tokens: Tensor
    labels: Tensor


class LoraLinear(nn.Module):
    """A frozen linear and a pair of matrices beside it: y = W x + alpha / rank · up · down · x."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        self._scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] to […, out]."""
        added: Tensor = self.linear(x) + self._scale * F.linear(F.linear(x, self.down), self.up)
        return added


def train(model: Any, examples: Sequence[Example], recipe: Recipe, report: Report) -> dict[str, LoraLinear]:
    """Train pairs of matrices beside a causal model's linears, which are returned by their names there.

    The lower layers, which stay as they are, are run once for each example.
    """
    torch.manual_seed(0)
    model.requires_grad_(False)
    layers, norm = model.model.layers, model.model.norm
    first = len(layers) - recipe.layers
    try:
        model.model.layers, model.model.norm = layers[:first], nn.Identity()
        seen = [(_hidden(model, example), example.labels) for example in examples]
        model.model.layers, model.model.norm = layers[first:], norm
        pairs = attach(model.model.layers, recipe)
        fit(model, seen, pairs.values(), recipe, report)
    finally:
        model.model.layers, model.model.norm = layers, norm
        detach(layers)
    return {_renumbered(name, first): pair for name, pair in pairs.items()}


def fit(
    model: Any,
    examples: Sequence[tuple[Tensor, Tensor]],
    pairs: Iterable[LoraLinear],
    recipe: Recipe,
    report: Report,
) -> None:
    """Let the pairs learn the labels [T] of what lower layers made of each example [T, hidden]."""
    parameters = [parameter for pair in pairs for parameter in (pair.down, pair.up)]
    optimizer = torch.optim.AdamW(parameters, recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    order: list[int] = []
    for step in range(recipe.steps):
        order = order if len(order) >= recipe.batch else torch.randperm(len(examples)).tolist()
        chosen, order = [examples[at] for at in order[: recipe.batch]], order[recipe.batch :]
        # What is behind the end of shorter ones no earlier token sees.
        inputs = pad_sequence([hidden for hidden, _ in chosen], batch_first=True)
        labels = pad_sequence([labels for _, labels in chosen], batch_first=True, padding_value=IGNORED)
        made = model.model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels[:, 1:] != IGNORED
        loss = F.cross_entropy(model.lm_head(made[wanted]), labels[:, 1:][wanted])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        report(step + 1, loss.item())


@torch.no_grad()
def _hidden(model: Any, example: Example) -> Tensor:
    hidden: Tensor = model.model(input_ids=example.tokens[None], use_cache=False).last_hidden_state[0]
    return hidden


def _renumbered(name: str, first: int) -> str:
    number, _, rest = name.partition(".")
    return f"model.layers.{int(number) + first}.{rest}"


def attach(layers: nn.Module, recipe: Recipe) -> dict[str, LoraLinear]:
    """Put pairs beside the linears of layers; by the linears' names."""
    found = {}
    for name, linear in [*layers.named_modules()]:
        parent, _, own = name.rpartition(".")
        if isinstance(linear, nn.Linear) and own in TARGETS:
            found[name] = LoraLinear(linear, recipe.rank, recipe.alpha)
            setattr(layers.get_submodule(parent), own, found[name])
    return found


def detach(layers: nn.Module) -> None:
    """Leave layers as they were before `attach`."""
    for name, module in [*layers.named_modules()]:
        if isinstance(module, LoraLinear):
            parent, _, own = name.rpartition(".")
            setattr(layers.get_submodule(parent), own, module.linear)


def save(pairs: Mapping[str, LoraLinear], recipe: Recipe, base: str, directory: Path) -> None:
    """Write pairs as PEFT's `save_pretrained` does. base: what the model is called there."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, pair in pairs.items():
        for half, matrix in (("A", pair.down), ("B", pair.up)):
            tensors[f"base_model.model.{name}.lora_{half}.weight"] = matrix.detach().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "bias": "none",
        "target_modules": list(TARGETS),
        "layers_to_transform": sorted({int(name.split(".")[2]) for name in pairs}),
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
