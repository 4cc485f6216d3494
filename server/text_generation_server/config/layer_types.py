"""Reads which layers of a model slide, in the spellings of transformers up to 4 and from 5 on. Knows no architecture.

Up to 4: `sliding_window_pattern: n` leaves every n-th layer full. From 5 on: `layer_types` names each layer's kind.
"""

from collections.abc import Sequence

from text_generation_server.config.configdict import ConfigDict

_SLIDES = {"sliding_attention": True, "full_attention": False, "attention": False}


def layer_windows(
    config: ConfigDict, layers: int, window: int | None, slides: Sequence[bool] | None = None
) -> tuple[int | None, ...]:
    """The window of each layer, None for one that sees all keys.

    slides: which layers have the window where no `layer_types` says so; all where it is left out.

    Raises:
        UnsupportedModel: a kind of layer that is neither sliding nor full, or sliding layers without a window.
    """
    kinds = config.per_layer("layer_types", layers)
    if kinds is None:
        return tuple(window if sliding else None for sliding in slides or [True] * layers)
    if unknown := [kind for kind in kinds if kind not in _SLIDES]:
        raise config.refusal("layer_types", unknown[0], f"each one of {', '.join(_SLIDES)}")
    if window is None and any(_SLIDES[kind] for kind in kinds):
        said = {key: config.get(key) for key in ("sliding_window", "use_sliding_window")}
        raise config.refusal("layer_types", "sliding_attention", f"no such layer beside {said}")
    return tuple(window if _SLIDES[kind] else None for kind in kinds)


def every_other_than(pattern: int, config: ConfigDict, layers: int) -> list[bool]:
    """Whether each layer slides where every n-th does not; `pattern` is the family's n where no key says."""
    pattern = config.integer("sliding_window_pattern", default=pattern)
    return [(layer + 1) % pattern != 0 for layer in range(layers)]
