"""GPT-BigCode, and SantaCoder in the files of its own code: GPT-2 with one key/value head."""

from oracles.case import TOKENS, VOCAB_SIZE, Case, Tensors

_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 45}
_BIGCODE = {**TOKENS, **_SIZES}
_SANTACODER = {
    **_SIZES,
    "activation_function": "gelu_fast",
    "architectures": ["GPT2LMHeadCustomModel"],
    "attention_head_type": "multiquery",
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "vocab_size": VOCAB_SIZE,
}


def _transposed(tensors: Tensors) -> Tensors:
    """Linears stored [in, out], as SantaCoder's own code has them."""
    linears = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    return {name: tensor.T if name.endswith(linears) else tensor for name, tensor in tensors.items()}


def _transposed_apart(tensors: Tensors) -> Tensors:
    """Also queries in a tensor of their own, apart from keys and values."""
    changed: Tensors = {}
    for name, tensor in _transposed(tensors).items():
        if ".c_attn." in name:
            queries = _SIZES["n_embd"]
            changed[name.replace("c_attn", "q_attn")] = tensor[..., :queries]
            changed[name.replace("c_attn", "kv_attn")] = tensor[..., queries:]
        else:
            changed[name] = tensor
    return changed


CASES = (
    Case(
        "gpt_bigcode",
        "StarCoder, SantaCoder, Granite Code 20B, 34B",
        "gpt_bigcode",
        _BIGCODE,
        "one key/value head, learned positions, tied head",
    ),
    Case(
        "gpt_bigcode-heads",
        "StarCoder, SantaCoder, Granite Code 20B, 34B",
        "gpt_bigcode",
        {**_BIGCODE, "multi_query": False, "activation_function": "gelu", "scale_attn_weights": False}
        | {"tie_word_embeddings": False},
        "a key and a value of each head, scores as they are, a head of its own",
    ),
    Case(
        "santacoder",
        "SantaCoder (original files)",
        "gpt_bigcode",
        _BIGCODE,
        "transposed linears, queries apart from keys and values",
        checkpoint=_transposed_apart,
        written=_SANTACODER,
    ),
    Case(
        "santacoder-fused",
        "SantaCoder (original files)",
        "gpt_bigcode",
        _BIGCODE,
        "transposed linears, queries, keys and values in one tensor, under the same config.json",
        checkpoint=_transposed,
        written=_SANTACODER,
    ),
)
