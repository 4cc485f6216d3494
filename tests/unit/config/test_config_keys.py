"""Whatever transformers' modeling code looks up in a config, we read too, or know why not."""

import ast
import inspect
import sys

import pytest
import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from text_generation_server.architectures.registry import ARCHITECTURES, read_spec
from text_generation_server.config.configdict import ConfigDict

TRAINING = """attention_dropout attn_pdrop dropout emb_pdrop embd_pdrop embedding_dropout hidden_dropout layerdrop
resid_pdrop residual_dropout initializer_range output_router_logits router_aux_loss_coef router_jitter_noise
rescale_prenorm_residual time_step_floor time_step_init_scheme time_step_max time_step_min time_step_scale
z_loss_coefficient"""
OTHER_HEADS = """classifier_dropout problem_type summary_activation summary_first_dropout summary_proj_to_labels
summary_type summary_use_proj"""
CALLS = "num_logits_to_keep output_attentions output_hidden_states pad_token_id return_dict use_cache"
HALF_PRECISION = """attention_softmax_in_fp32 chunk_size dtype mamba_chunk_size pretraining_tp reorder_and_upcast_attn
scale_attention_softmax_in_fp32 slow_but_exact use_associative_scan use_mambapy"""
IGNORED = {*TRAINING.split(), *OTHER_HEADS.split(), *CALLS.split(), *HALF_PRECISION.split()}
"""What does not change an answer: how a model was trained, other tasks, what a call returns, and how sums are made."""

UNUSED = {
    ("gemma3_text", "attn_logit_softcapping"),
    ("mpt", "max_seq_len"),
    ("mamba", "intermediate_size"),
    ("falcon_mamba", "intermediate_size"),
    ("mamba2", "time_step_rank"),
}
"""Looked up, but for nothing that counts: kept in an attribute that nothing reads; the size of a table of biases; made
of other keys, whatever the file says."""

SWITCHES = {
    "falcon": ({"new_decoder_architecture": True, "num_kv_heads": 8},),
    **dict.fromkeys(
        ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), ({"use_sliding_window": True, "sliding_window": 64},)
    ),
    "smollm3": ({"use_sliding_window": True, "sliding_window": 64},),
}
"""Values with which other keys count."""

USUAL = {"gemma3": {"mm_tokens_per_image": 196}}
"""Where default values make no model: other ones."""

KNOWN = [name for name in ARCHITECTURES if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]


def looked_up(model_type: str) -> set[str]:
    """Names that the modeling file takes from something called `config`."""
    model = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[model.__module__]))):
        match node:
            case ast.Attribute(value=ast.Name("config") | ast.Attribute(attr="config"), attr=name):
                found.add(name)
            case ast.Call(func=ast.Name("getattr"), args=[of, ast.Constant(str() as name), *_]):
                found |= {name} if ast.unparse(of).endswith("config") else set()
    return found


@pytest.mark.parametrize("model_type", KNOWN)
def test_every_key_that_counts_is_read(model_type):
    values = AutoConfig.for_model(model_type).to_dict() | USUAL.get(model_type, {})
    overlooked = looked_up(model_type) & values.keys() - IGNORED
    for switch in ({}, *SWITCHES.get(model_type, ())):
        config = ConfigDict({**values, **switch})
        read_spec(config)
        overlooked &= set(config.unread())
    overlooked -= {key for of, key in UNUSED if of == model_type}
    told = f"written for transformers 5.24, this is {transformers.__version__}: read {overlooked}, or say why not"
    assert not overlooked, told


def test_most_architectures_are_compared():
    """All but those whose code is not transformers' own, or whose files call them otherwise."""
    assert len(KNOWN) >= 30
