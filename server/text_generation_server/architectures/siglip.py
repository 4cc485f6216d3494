"""SigLIP's vision tower. Checked against transformers 5.24.

Trap: files may have a pooling head that nothing reads.
"""

from text_generation_server.architectures.tower_config import tower_of
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.vision import TowerNames, TowerSpec

_HEAD = (
    "probe",
    *(f"attention.{part}" for part in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    *(f"{part}.{kind}" for part in ("layernorm", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
)


def siglip_tower(config: ConfigDict, prefix: str) -> TowerSpec:
    """The tower of a `vision_config`, whose names begin with `prefix`."""
    layers = config.integer("num_hidden_layers", default=12)
    return tower_of(
        config,
        patch_size=16,
        activation="gelu_pytorch_tanh",
        eps=1e-6,
        names=TowerNames(
            patches=f"{prefix}embeddings.patch_embedding",
            positions=f"{prefix}embeddings.position_embedding",
            layer=f"{prefix}encoder.layers.{{}}",
            norm1="layer_norm1",
            qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out="self_attn.out_proj",
            norm2="layer_norm2",
            up="mlp.fc1",
            down="mlp.fc2",
            after=f"{prefix}post_layernorm",
            unused=tuple(f"{prefix}head.{name}" for name in _HEAD),
        ),
        taken=(layers,),
        patch_bias=True,
    )
