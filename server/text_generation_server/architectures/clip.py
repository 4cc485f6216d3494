"""CLIP's vision tower. Checked against transformers 5.24.

Traps: the norm before the layers is written `pre_layrnorm`; the last layer and the norm behind it are in checkpoints
even where nothing reads them.
"""

from text_generation_server.architectures.tower_config import tower_of
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.vision import TowerNames, TowerSpec

LAYER_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
LAYER_NORMS = ("layer_norm1", "layer_norm2")


def clip_tower(config: ConfigDict, prefix: str, wanted: tuple[int, ...]) -> TowerSpec:
    """The tower of a `vision_config`, whose names begin with `prefix`.

    wanted: layers whose outputs are taken, counted from 1, or from −1 for the last.

    Raises:
        UnsupportedModel: there is no such layer.
    """
    layers = config.integer("num_hidden_layers", default=12)
    taken = tuple(number if number >= 0 else layers + 1 + number for number in wanted)
    if not all(0 <= number <= layers for number in taken):
        raise config.refusal("num_hidden_layers", layers, f"as many as there are in {list(wanted)}, which are taken")
    return tower_of(
        config,
        patch_size=32,
        activation="quick_gelu",
        eps=1e-5,
        names=TowerNames(
            class_token=f"{prefix}embeddings.class_embedding",
            patches=f"{prefix}embeddings.patch_embedding",
            positions=f"{prefix}embeddings.position_embedding",
            before=f"{prefix}pre_layrnorm",
            layer=f"{prefix}encoder.layers.{{}}",
            norm1="layer_norm1",
            qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out="self_attn.out_proj",
            norm2="layer_norm2",
            up="mlp.fc1",
            down="mlp.fc2",
            unused=(*_both(f"{prefix}post_layernorm"), *unread_layers(prefix, max(taken), layers)),
        ),
        taken=taken,
    )


def unread_layers(prefix: str, first: int, past: int) -> list[str]:
    """The tensors of these layers, numbered from 0."""
    return [
        name
        for layer in range(first, past)
        for part in (*LAYER_LINEARS, *LAYER_NORMS)
        for name in _both(f"{prefix}encoder.layers.{layer}.{part}")
    ]


def _both(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"
