"""Mamba 1 (the -hf files) and Falcon Mamba. Checked against transformers 5.24.

Traps: `intermediate_size` is not asked, `expand` is; `time_step_rank` may be "auto". Falcon Mamba differs in one thing,
the norms without weights of time steps, B and C.
"""

import math
from dataclasses import replace

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import rms_norm
from text_generation_server.specs.recurrent import RecurrentNames, RecurrentSpec, SsmNames, SsmSpec

MAMBA_NAMES = RecurrentNames(
    family_prefix="backbone.",
    embedding="backbone.embeddings",
    layer="backbone.layers.{}",
    norm="norm",
    final_norm="backbone.norm_f",
)

_MIXER_NAMES = SsmNames(
    projection_in="mixer.in_proj",
    conv="mixer.conv1d",
    selection="mixer.x_proj",
    time_step="mixer.dt_proj",
    decay="mixer.A_log",
    skip="mixer.D",
    projection_out="mixer.out_proj",
)


def mamba(config: ConfigDict) -> RecurrentSpec:
    """The spec of a Mamba."""
    hidden = config.integer("hidden_size")
    return RecurrentSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=rms_norm(config.number("layer_norm_epsilon", default=1e-5)),
        ssm=SsmSpec(
            inner_size=config.integer("expand", default=2) * hidden,
            state_size=config.integer("state_size", default=16),
            conv_width=config.integer("conv_kernel", default=4, at_least=2),
            step_rank=_step_rank(config, hidden),
            activation=config.activation("hidden_act", default="silu"),
            names=_MIXER_NAMES,
            bias=config.flag("use_bias", default=False),
            conv_bias=config.flag("use_conv_bias", default=True),
        ),
        names=MAMBA_NAMES,
        head=config.head(tied_by_default=True),
        wide_residual=config.flag("residual_in_fp32", default=True),
    )


def falcon_mamba(config: ConfigDict) -> RecurrentSpec:
    """The spec of a Falcon Mamba."""
    spec = mamba(config)
    assert isinstance(spec.ssm, SsmSpec)
    return replace(spec, ssm=replace(spec.ssm, parts_eps=config.number("mixer_rms_eps", default=1e-6)))


def _step_rank(config: ConfigDict, hidden: int) -> int:
    if config.get("time_step_rank") in (None, "auto"):
        return math.ceil(hidden / 16)
    return config.integer("time_step_rank")
