"""Mamba 2 (the -hf files), Codestral Mamba. Checked against transformers 5.24.

Traps: `intermediate_size` is not asked, `expand` is, and must be heads times head_dim. The head is not tied unless the
config says so. Time steps are kept between `time_step_limit`; transformers' own code does so with prompts only.
"""

from dataclasses import dataclass

from text_generation_server.architectures.mamba import MAMBA_NAMES
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import rms_norm
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.specs.ssd import SsdNames, SsdSpec


@dataclass(frozen=True, slots=True)
class SsdKeys:
    """What a family's config calls what a layer is made of, and what it means by leaving two of them out."""

    heads: str
    head_dim: str
    groups: str
    state: str
    width: str
    expand: str
    bias: str
    conv_bias: str
    usual_groups: int
    usual_state: int


def ssd_names(mixer: str) -> SsdNames:
    """Of a layer's part of this name."""
    return SsdNames(
        projection_in=f"{mixer}.in_proj",
        conv=f"{mixer}.conv1d",
        step_bias=f"{mixer}.dt_bias",
        decay=f"{mixer}.A_log",
        skip=f"{mixer}.D",
        norm=f"{mixer}.norm",
        projection_out=f"{mixer}.out_proj",
    )


def read_ssd(config: ConfigDict, hidden: int, eps: float, names: SsdNames, keys: SsdKeys) -> SsdSpec:
    """The layer of a config with such keys.

    Raises:
        UnsupportedModel: heads and their size are not what the hidden state is expanded to.
    """
    heads, inner = config.integer(keys.heads), config.integer(keys.expand, default=2) * hidden
    head_dim = inner // heads
    if config.get(keys.head_dim) not in (None, "auto"):
        head_dim = config.integer(keys.head_dim)
    if heads * head_dim != inner:
        raise config.refusal(keys.head_dim, head_dim, f"{inner} channels divided by {heads} heads")
    groups = config.integer(keys.groups, default=keys.usual_groups)
    if heads % groups:
        raise config.refusal(keys.groups, groups, f"a divisor of {heads} heads")
    return SsdSpec(
        heads=heads,
        head_dim=head_dim,
        state_size=config.integer(keys.state, default=keys.usual_state),
        groups=groups,
        conv_width=config.integer(keys.width, default=4, at_least=2),
        activation=config.activation("hidden_act", default="silu"),
        norm_eps=eps,
        names=names,
        bias=config.flag(keys.bias, default=False),
        conv_bias=config.flag(keys.conv_bias, default=True),
        **_step_limit(config),
    )


def mamba2(config: ConfigDict) -> RecurrentSpec:
    """The spec of a Mamba 2."""
    hidden, eps = config.integer("hidden_size"), config.number("layer_norm_epsilon", default=1e-5)
    return RecurrentSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=rms_norm(eps),
        ssm=read_ssd(config, hidden, eps, ssd_names("mixer"), _KEYS),
        names=MAMBA_NAMES,
        head=config.head(),
        wide_residual=config.flag("residual_in_fp32", default=True),
    )


_KEYS = SsdKeys(
    heads="num_heads",
    head_dim="head_dim",
    groups="n_groups",
    state="state_size",
    width="conv_kernel",
    expand="expand",
    bias="use_bias",
    conv_bias="use_conv_bias",
    usual_groups=8,
    usual_state=128,
)


def _step_limit(config: ConfigDict) -> dict[str, tuple[float, float]]:
    if config.get("time_step_limit") is None:
        return {}
    limits = config.numbers("time_step_limit")
    if len(limits) != 2:
        raise config.refusal("time_step_limit", limits, "two numbers")
    return {"step_limit": (limits[0], limits[1])}
