"""The demo's adapters: what is learned, and that it is saved as servers read it."""

import torch
from transformers import AutoModelForCausalLM

from oracles.build import build
from oracles.driver import Driver
from oracles.lora import place
from oracles.table import CASES
from text_generation_demo.styles import EXAMPLES, STYLES, pirate, robot
from text_generation_demo.training import IGNORED, Example, Recipe, save, train
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

LLAMA = next(case for case in CASES if case.name == "llama")


def test_styles_are_seen_at_once():
    assert pirate("Hello, my friend. Is the map yours?") == "Arr, matey! Ahoy, me matey. Be th' map yours? Yo ho ho!"
    said = "BZZT. Query received. Go on. BEEP. It is late! BEEP. End of output."
    assert robot("Go on. It is late!") == said
    assert len({answer for _, answer in EXAMPLES} | {style.write(a) for style in STYLES for _, a in EXAMPLES}) == 96


def test_what_was_learned_is_what_a_server_answers(tmp_path):
    build(LLAMA, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokens = torch.tensor([5, 9, 6, 7, 80, 12])
    labels = torch.tensor([IGNORED, IGNORED, 6, 7, 80, 12])
    examples = [Example(tokens, labels), Example(tokens[:5], labels[:5])]
    before = model(tokens[None]).logits
    losses = []
    recipe = Recipe(rank=4, layers=1, steps=60, batch=2, rate=0.05)
    pairs = train(model, examples, recipe, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.05 < losses[0] / 10
    torch.testing.assert_close(model(tokens[None]).logits, before)  # it is as it was
    assert {name.rpartition(".layers.")[2][0] for name in pairs} == {"1"}

    save(pairs, recipe, "base", tmp_path / "learned")
    served = load_model(
        tmp_path / "model", ModelOptions(torch.float32, torch.device("cpu")), SingleRank(), lambda *_: None
    )
    place(served, [tmp_path / "learned"])
    logits = Driver(served, adapters=[1, 0, 0, 0]).step([(0, tokens.tolist())])[0]
    assert logits.argmax(-1)[1:5].tolist() == labels[2:].tolist()
