"""What the `vision_config` of all towers says in the same words, each with defaults of its own."""

from collections.abc import Sequence

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.vision import TowerNames, TowerSpec


def tower_of(
    config: ConfigDict,
    *,
    patch_size: int,
    activation: str,
    eps: float,
    names: TowerNames,
    taken: Sequence[int],
    patch_bias: bool = False,
) -> TowerSpec:
    """A tower, see `TowerSpec`. patch_size, activation, eps: where the config does not tell."""
    return TowerSpec(
        hidden_size=config.integer("hidden_size", default=768),
        layers=config.integer("num_hidden_layers", default=12),
        heads=config.integer("num_attention_heads", default=12),
        image_size=config.integer("image_size", default=224),
        patch_size=config.integer("patch_size", default=patch_size),
        channels=config.integer("num_channels", default=3),
        inner_size=config.integer("intermediate_size", default=3072),
        activation=config.activation("hidden_act", default=activation),
        eps=config.number("layer_norm_eps", default=eps),
        names=names,
        taken=tuple(taken),
        patch_bias=patch_bias,
    )
