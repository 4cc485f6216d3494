"""What models with an encoder do not do, and say so when they are loaded."""

import json

import pytest
import torch

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
        (torch.float16, SingleRank(), {}, "beyond float16: use --dtype bfloat16 or float32"),
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
