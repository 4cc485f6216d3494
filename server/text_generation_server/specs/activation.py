"""The activation functions of MLPs, by name."""

from collections.abc import Mapping
from enum import StrEnum


class Activation(StrEnum):
    """Functions of an MLP, by what they compute."""

    SILU = "silu"
    RELU = "relu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    GELU_SIGMOID = "gelu_sigmoid"
    CLAMPED_SWIGLU = "clamped_swiglu"
    """Of gates up to 7, by gelu_sigmoid; what they let through is bounded to ±7 and one is added (gpt-oss)."""


GAIN = 1.702
"""Of the sigmoid in gelu_sigmoid and clamped_swiglu."""

LIMIT = 7.0
"""Of clamped_swiglu."""

ACTIVATION_NAMES: Mapping[str, Activation] = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.GELU_SIGMOID,
}
"""As config files call them."""
