"""What some options may be, of shards and of their launcher. Knows no option."""

from enum import StrEnum


class Dtype(StrEnum):
    """Precision of weights and activations."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class LoadFormat(StrEnum):
    """Where weights come from."""

    AUTO = "auto"
    """Safetensors files, written from PyTorch files where there are none."""
    SAFETENSORS = "safetensors"
    """Safetensors files only."""
    DUMMY = "dummy"
    """Random numbers: a directory with a config.json is enough."""


class RopeScaling(StrEnum):
    """How ROPE_SCALING stretches positions beyond what the model was trained on."""

    LINEAR = "linear"
    DYNAMIC = "dynamic"
