"""Reads which layers of a model slide, in the spellings of transformers up to 4 and from 5 on. Knows no architecture.

Up to 4: `sliding_window_pattern: n` leaves every n-th layer full. From 5 on: `layer_types` names each layer's kind.
"""

from text_generation_server.models.configdict import ConfigDict

_SLIDES = {"sliding_attention": True, "full_attention": False}


def sliding_layers(config: ConfigDict, layers: int, pattern: int) -> tuple[bool, ...]:
    """Whether each layer has a sliding window; `pattern` is the family's where no key says.

    Raises:
        UnsupportedModel: a kind of layer that is neither sliding nor full.
    """
    kinds = config.per_layer("layer_types", layers)
    if kinds is None:
        pattern = config.integer("sliding_window_pattern", default=pattern)
        return tuple((layer + 1) % pattern != 0 for layer in range(layers))
    if unknown := [kind for kind in kinds if kind not in _SLIDES]:
        raise config.refusal("layer_types", unknown[0], f"each one of {', '.join(_SLIDES)}")
    return tuple(_SLIDES[kind] for kind in kinds)
