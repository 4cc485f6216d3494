"""Linears know their slices of the checkpoint and their tokens' sequences: an adapter made of nothing else is exact."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from oracles.driver import Driver
from oracles.lora import save_merged
from text_generation_server.adapters.matching import shapes_of
from text_generation_server.distributed.group import SingleRank
from text_generation_server.layers.linear import ColumnParallelLinear, LinearStep, ParallelLinear
from text_generation_server.models.loading import ModelOptions, load_model

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
ADAPTED_ROW = 1
CASES = [
    "llama",
    "gptj",
    "phi3",
    "gpt_neox",
    "gpt2",
    "falcon-40b",
    "cohere",
    "mpt",
    "qwen2_moe",
]
"""Linears apart and fused in each order, gated and not, transposed, with padded or reordered heads, of branches apart
and side by side, of an expert that all share."""


class OneRowsDelta:
    """Adds a change of weights, given by the checkpoint's names, for the tokens of one row: satisfies `Addend`."""

    def __init__(self, linear: ParallelLinear, deltas: Mapping[str, Tensor]) -> None:
        self._cut_by_outputs = isinstance(linear, ColumnParallelLinear)
        self._pieces = []
        for piece in linear.slices:
            delta = deltas[piece.name]
            self._pieces.append((piece.start, delta[piece.taken] if self._cut_by_outputs else delta[:, piece.taken]))

    def __call__(self, out: Tensor, x: Tensor, step: LinearStep) -> Tensor:
        """See `Addend`."""
        mine = (step.rows == ADAPTED_ROW).to(x.dtype)[:, None]
        assert len(mine) == len(x)
        for start, delta in self._pieces:
            if self._cut_by_outputs:
                out[:, start : start + len(delta)] += mine * (x @ delta.T)
            else:
                out += mine * (x[:, start : start + delta.shape[1]] @ delta.T)
        return out


@pytest.mark.parametrize("oracle", CASES, indirect=True)
def test_a_sequence_with_an_addend_is_answered_as_by_merged_weights(oracle, tmp_path):
    model = oracle.load()
    assert len(model.linears) >= 2 * oracle.case.config.get("num_hidden_layers", 2)
    deltas = {
        name: 0.3 * torch.randn(out, 3) @ torch.randn(3, width) / 3
        for name, (out, width) in shapes_of(model.linears).items()
    }
    save_merged(oracle.directory, deltas, tmp_path / "merged", oracle.case.model_type == "gpt2")
    merged = load_model(tmp_path / "merged", FLOAT32, SingleRank(), lambda _done, _total: None)

    work = [(0, [5, 6, 7, 8]), (ADAPTED_ROW, [9, 10, 11]), (2, [12])]
    plain, changed = Driver(model).step(work), Driver(merged).step(work)
    for linear in model.linears:
        linear.addend = OneRowsDelta(linear, deltas)
    both = Driver(model).step(work)
    last_tokens = Driver(model).pick(work, [3, 6, 7])

    assert not torch.allclose(plain[ADAPTED_ROW], changed[ADAPTED_ROW], atol=0.1)
    expected = [plain[0], changed[ADAPTED_ROW], plain[2]]
    for got, wanted in zip(both, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=oracle.case.tolerance, rtol=1e-4)
    ends = torch.stack([logits[-1] for logits in expected])
    torch.testing.assert_close(last_tokens, ends, atol=oracle.case.tolerance, rtol=1e-4)
