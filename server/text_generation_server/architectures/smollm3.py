"""SmolLM3: Llama with layers that do not rotate. Checked against transformers 5.23.

Traps: `no_rope_layers` has a 1 where a layer does rotate. `sliding_window` counts only with `use_sliding_window`, and
then, where `layer_types` is absent, in layers that do not rotate.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import layer_windows
from text_generation_server.config.rope import read_rope
from text_generation_server.specs.decoder import DecoderSpec


def smollm3(config: ConfigDict) -> DecoderSpec:
    """The spec of a SmolLM3."""
    spec = llama(config)
    rope = read_rope(config, spec.attention.head_dim, theta=2e6)
    rotated = _rotated_layers(config, spec.num_layers)
    return replace(
        spec,
        attention=replace(
            spec.attention,
            rope=rope,
            ropes=tuple(rope if rotates else None for rotates in rotated),
            windows=_windows(config, rotated),
        ),
        head=config.head(tied_by_default=True),
    )


def _rotated_layers(config: ConfigDict, layers: int) -> list[bool]:
    interval = config.integer("no_rope_layer_interval", default=4)
    given = config.per_layer("no_rope_layers", layers)
    return [(layer + 1) % interval != 0 for layer in range(layers)] if given is None else [bool(one) for one in given]


def _windows(config: ConfigDict, rotated: list[bool]) -> tuple[int | None, ...]:
    window = config.optional_integer("sliding_window")
    if window is None or not config.flag("use_sliding_window", default=False):
        return ()
    return layer_windows(config, len(rotated), window, [not rotates for rotates in rotated])
