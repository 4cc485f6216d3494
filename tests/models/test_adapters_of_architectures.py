"""An adapter to everything that adapters can change answers as the merged weights do: a case of every architecture."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from oracles.case import unchanged
from oracles.driver import Driver
from oracles.lora import place, save_adapter, save_merged
from oracles.pictures import Pictures
from oracles.table import CASES
from text_generation_server.adapters.matching import match
from text_generation_server.adapters.pairs import read_adapter
from text_generation_server.adapters.targets import targets_of
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
ROWS = {case.row: case.name for case in reversed(CASES) if case.model_type not in ("t5", "mt5")}
"""The first case of every row of docs/models.md whose linears adapters can change."""
TOKENS = [5, 9, 6, 7, 80, 12, 33, 3, 41]
SPANS = (len(TOKENS),) * 2


def merged_logits(case, directory):
    """What transformers answers with merged weights; our model without adapters where it cannot, or wants images."""
    if (
        case.checkpoint is unchanged
        and case.written is None
        and (case.pictures is None or type(case.pictures) is Pictures)
    ):
        more = {key: case.config[key] for key in ("experts_implementation",) if key in case.config}
        kind = AutoModelForCausalLM if case.pictures is None else AutoModelForImageTextToText
        model = kind.from_pretrained(directory, attn_implementation=case.attention, dtype=torch.float32, **more)
        with torch.inference_mode():
            return case.forward(model.eval(), torch.tensor([TOKENS]))
    model = load_model(directory, FLOAT32, SingleRank(), lambda _done, _total: None)
    return Driver(model, SPANS).step([(0, TOKENS)])[0]


@pytest.mark.parametrize("oracle", ROWS.values(), indirect=True)
def test_all_that_adapters_can_change_is_as_if_merged(oracle, tmp_path):
    case, model = oracle.case, oracle.load()
    plain = Driver(model, SPANS).step([(0, TOKENS)])[0]
    deltas = save_adapter(tmp_path / "law", targets_of(model.linears).shapes, rank=2, seed=3, alpha=0.5)
    merged = save_merged(oracle.directory, deltas, tmp_path / "merged")
    place(model, [tmp_path / "law"])
    adapted, beside = Driver(model, SPANS, adapters=[1, 0]).step([(0, TOKENS), (1, TOKENS)])
    torch.testing.assert_close(adapted, merged_logits(case, merged), atol=case.tolerance, rtol=1e-4)
    torch.testing.assert_close(beside, plain, atol=case.tolerance, rtol=0.0)
    assert torch.nan_to_num(adapted - plain).abs().max() > 0.05  # some of Llama 3.2 Vision's are never allowed


@pytest.mark.parametrize("oracle", ["qwen2_5_vl"], indirect=True)
def test_adapters_may_call_modules_as_transformers_does_today(oracle, tmp_path):
    """Whose text part is a module of its own, which it is in no published checkpoint."""
    targets = targets_of(oracle.load().linears)
    theirs = {name.replace("model.", "model.language_model.", 1): shape for name, shape in targets.shapes.items()}
    save_adapter(tmp_path / "law", theirs, rank=2, seed=3, target_modules=r"model\.language_model\..*_proj")
    assert match(read_adapter(tmp_path / "law"), targets).keys() == targets.shapes.keys()
