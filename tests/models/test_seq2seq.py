"""What models with an encoder do not do, and say so when they are loaded; and sums that float16 cannot hold."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles.driver import Driver
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model

T5 = {
    "model_type": "t5", "vocab_size": 99, "d_model": 16, "d_ff": 24, "d_kv": 4, "num_heads": 3, "num_layers": 1,
}  # fmt: skip


class TwoRanks(SingleRank):
    """Says that there are two."""

    world_size = 2


@pytest.mark.parametrize(
    ("dtype", "group", "options", "words"),
    [
        (torch.float32, SingleRank(), {"deterministic": True}, "--deterministic is not for models with an encoder"),
        (torch.float32, SingleRank(), {"rope_scaling": "linear"}, "has no rotary positions"),
        (torch.float32, TwoRanks(), {}, "3 attention heads, which 2 shards cannot divide"),
    ],
)
def test_what_is_refused(tmp_path, dtype, group, options, words):
    (tmp_path / "config.json").write_text(json.dumps(T5))
    asked = ModelOptions(dtype, torch.device("cpu"), random_weights=True, **options)
    with pytest.raises(UnsupportedModel, match=words):
        load_model(tmp_path, asked, group, lambda _done, _total: None)


def test_sums_beyond_float16_are_kept(oracle_of, tmp_path):
    """MLPs add more than float16 holds, in encoder and decoder, as those of the largest T5s do."""
    directory = oracle_of("t5").directory
    tensors = load_file(directory / "model.safetensors")
    large = {name: tensor * (3e4 if name.endswith("wo.weight") else 1) for name, tensor in tensors.items()}
    save_file(large, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    logits = {}
    for dtype in (torch.float32, torch.float16):
        model = load_model(tmp_path, ModelOptions(dtype, torch.device("cpu")), SingleRank(), lambda _done, _total: None)
        (logits[dtype],) = Driver(model).step([(0, [0, 5, 17, 33, 9, 60])])
    assert logits[torch.float16].dtype is torch.float16
    apart = logits[torch.float16].float() - logits[torch.float32]
    assert apart.isfinite().all() and apart.std() < 0.1 * logits[torch.float32].std()
