"""When FlashInfer's plans are made, and who answers for which tokens, without FlashInfer."""

import pytest
import torch

from text_generation_server.attention.base import LayerAttention
from text_generation_server.attention.flashinfer_plans import LatePlan, PromptsPlan


class Told:
    """A plan that answers with what it was asked."""

    def run(self, q, layer, cache):
        return q, layer, cache


def test_a_late_plan_is_made_once_and_by_the_first_layer():
    made = []

    def make():
        made.append(Told())
        return made[-1]

    plan = LatePlan(make)
    assert not made
    assert [plan.run("q", layer, "cache") for layer in (0, 1)] == [("q", 0, "cache"), ("q", 1, "cache")]
    assert len(made) == 1


class Prompts:
    """Answers queries [T, H, d] with themselves."""

    def write(self, q, layer, cache, out):
        return out.copy_(q.flatten(1))


class Singles:
    """Answers its tokens with -1."""

    def __init__(self, tokens):
        self.tokens = tokens

    def write(self, q, layer, cache, out):
        out[self.tokens] = -1.0
        return out


@pytest.mark.parametrize("prompts", [slice(1, 4), torch.tensor([0, 1, 4])], ids=["side by side", "apart"])
def test_prompts_and_single_tokens_are_answered_each_by_its_own(prompts):
    q = torch.arange(5.0).view(5, 1, 1) * torch.ones(5, 2, 3)
    rest = sorted({*range(5)} - {*torch.arange(5)[prompts].tolist()})
    got = PromptsPlan([Prompts()], prompts, Singles(rest)).run(q, LayerAttention(0, 0, 1.0), None)
    expected = q.flatten(1).clone()
    expected[rest] = -1.0
    assert torch.equal(got, expected)
