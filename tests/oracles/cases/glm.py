"""GLM-4 in its three forms: files for transformers, the 0414 models, and the files with code of their own."""

import torch

from oracles.case import LLAMA, Case, Tensors, rope

_GLM = {**LLAMA, "head_dim": 12, "rms_norm_eps": 1.5625e-7}
_HALF = rope("default", partial_rotary_factor=0.5)
_RENAMED = {
    "model.embed_tokens": "transformer.embedding.word_embeddings",
    "model.layers.": "transformer.encoder.layers.",
    "self_attn.qkv": "self_attention.query_key_value",
    "self_attn.o_proj": "self_attention.dense",
    "mlp.gate_up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "model.norm": "transformer.encoder.final_layernorm",
    "lm_head": "transformer.output_layer",
}
_CHATGLM = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "ffn_hidden_size": 45,
    "fp32_residual_connection": False,
    "hidden_size": 32,
    "kv_channels": 12,
    "layernorm_epsilon": 1.5625e-7,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 2,
    "original_rope": True,
    "padded_vocab_size": 97,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 50,
    "seq_length": 128,
    "tie_word_embeddings": False,
}


def _remote_code_files(tensors: Tensors) -> Tensors:
    """Other names, one tensor for queries, keys and values, and a buffer that counts for nothing."""
    changed = {"transformer.rotary_pos_emb.inv_freq": torch.ones(3)}
    for name, tensor in tensors.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            tensor = torch.cat([tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            name = name.replace("q_proj", "qkv")
        for ours, theirs in _RENAMED.items():
            name = name.replace(ours, theirs)
        changed[name] = tensor
    return changed


CASES = (
    Case(
        "glm",
        "GLM-4 9B (-hf)",
        "glm",
        {**_GLM, **_HALF},
        "half of each head rotated in interleaved pairs, biases on queries, keys and values, gate and up in one tensor",
    ),
    Case(
        "glm4",
        "GLM-4-0414",
        "glm4",
        {**_GLM, **_HALF},
        "norms of branches' outputs too",
    ),
    Case(
        "glm4-plain",
        "GLM-4-0414",
        "glm4",
        {**_GLM, "attention_bias": False, "tie_word_embeddings": True, **rope("default", partial_rotary_factor=1.0)},
        "no biases, whole heads rotated, tied head",
    ),
    Case(
        "chatglm",
        "GLM-4 9B (remote code)",
        "glm",
        {**_GLM, **rope("default", partial_rotary_factor=0.5, rope_theta=500000.0)},
        "names and keys of the remote code",
        checkpoint=_remote_code_files,
        written=_CHATGLM,
    ),
)
