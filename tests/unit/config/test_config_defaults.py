"""A key that config.json leaves out means what transformers takes it for, wherever no tensor's shape would tell."""

import pytest
import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from text_generation_server.architectures.registry import ARCHITECTURES, read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel

LOUD = ("model_type", "head_dim", "num_key_value_heads")
"""What is wrong with another value of these is seen at once: tensors have other shapes."""

OURS = ("max_position_embeddings", "tie_word_embeddings")
"""Without these keys a length is unbounded, and the checkpoint says whether there is a head."""

NO_MODEL = ("gemma3",)
"""What such a config leaves out makes no model: images would have more tokens than patches."""


def spec_without(values, key):
    """None where the key has to be there."""
    try:
        return read_spec(ConfigDict({name: value for name, value in values.items() if name != key}))
    except UnsupportedModel:
        return None


TRIED = [name for name in ARCHITECTURES if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name not in NO_MODEL]


@pytest.mark.parametrize("model_type", TRIED)
def test_a_key_left_out_means_its_default(model_type):
    values = AutoConfig.for_model(model_type).to_dict()
    whole = read_spec(ConfigDict(values))
    wrong = [key for key in values if key not in (*LOUD, *OURS) and spec_without(values, key) not in (None, whole)]
    told = f"written for transformers 5.24, this is {transformers.__version__}"
    assert not wrong, f"{told}: its defaults of {wrong} are {[values[key] for key in wrong]}"
