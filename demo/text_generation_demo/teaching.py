"""Makes the demo's adapters: the default model learns each style. Knows what is learned, not how."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from text_generation_demo.styles import EXAMPLES, Style
from text_generation_demo.training import IGNORED, Example, Recipe, Report, save, train
from text_generation_server.settings import hub_settings
from text_generation_server.weights.source import locate

END = "<|im_end|>"
"""What ends an answer of the default model."""


def teach(model_id: str, styles: Sequence[Style], folder: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Train an adapter for each style, and save them in folders of their names."""
    directory = locate(model_id, None, hub_settings())
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for style in styles:
        examples = [_example(tokenizer, question, style.write(answer)) for question, answer in EXAMPLES]
        pairs = train(model, examples, recipe, _teller(style.name, recipe.steps, say))
        save(pairs, recipe, model_id, folder / style.name)


def _example(tokenizer: Any, question: str, answer: str) -> Example:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    said = tokenizer(answer + END, add_special_tokens=False).input_ids
    return Example(torch.tensor(asked + said), torch.tensor([IGNORED] * len(asked) + said))


def _teller(name: str, steps: int, say: Callable[[str], None]) -> Report:
    return lambda step, loss: say(f"{name}: step {step} of {steps}, loss {loss:.2f}")
