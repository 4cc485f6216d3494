"""Cohere's Command-R, Command-R+, Aya; Command-R7B, Command A (Cohere 2). Checked against transformers 5.23.

Traps: norms are layer norms without bias, and one feeds both branches. With `use_qk_norm` (Command-R+) each head has
norm weights of its own. Cohere 2 rotates in its sliding layers only; the full ones know no positions. Published files
of Command-R give the length it is for as `model_max_length`, and a shorter one as `max_position_embeddings`.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES, llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import every_other_than, layer_windows
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import DecoderSpec, QkNormScope, QkNormSpec, Wiring, layer_norm

COHERE_NAMES = replace(LLAMA_NAMES, mlp_norm="", q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")


def cohere(config: ConfigDict, theta: float = 500000.0) -> DecoderSpec:
    """The spec of a Command-R. theta: of the rotation where config.json has none."""
    spec = llama(config)
    norm = layer_norm(config.number("layer_norm_eps", default=1e-5), bias=False)
    has_qk_norm = config.flag("use_qk_norm", default=False)
    return replace(
        spec,
        norm=norm,
        attention=replace(
            spec.attention,
            rope=read_rope(config, spec.attention.head_dim, theta=theta, interleaved=True),
            qk_norm=QkNormSpec(norm, QkNormScope.EACH_HEAD) if has_qk_norm else None,
        ),
        names=COHERE_NAMES,
        head=replace(config.head(tied_by_default=True), scale=config.number("logit_scale", default=0.0625)),
        wiring=Wiring.PARALLEL,
        max_positions=read_max_positions(config, "model_max_length", "max_position_embeddings"),
    )


def cohere2(config: ConfigDict) -> DecoderSpec:
    """The spec of a Cohere 2."""
    config.reject("use_qk_norm", True)
    spec = cohere(config, theta=10000.0)
    window = config.nullable_integer("sliding_window", 4096)
    windows = layer_windows(config, spec.num_layers, window, every_other_than(4, config, spec.num_layers))
    rope = spec.attention.rope
    attention = replace(
        spec.attention,
        rope=None,
        ropes=tuple(None if window is None else rope for window in windows),
        windows=windows,
    )
    return replace(spec, attention=attention)
