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


class Quantize(StrEnum):
    """How weights are quantised: a checkpoint's own format, which it says itself, or what a plain one is made into."""

    AWQ = "awq"
    GPTQ = "gptq"
    COMPRESSED_TENSORS = "compressed-tensors"
    FP8 = "fp8"
    EETQ = "eetq"
    BITSANDBYTES = "bitsandbytes"
    BITSANDBYTES_NF4 = "bitsandbytes-nf4"
    BITSANDBYTES_FP4 = "bitsandbytes-fp4"
    GGUF = "gguf"
    """A .gguf file's linears stay as they are, where they would be made plain."""

    @property
    def keeps_packing(self) -> bool:
        """Whether it changes what a file of another kind is converted into, before it is served."""
        return self is Quantize.GGUF


class KvCacheDtype(StrEnum):
    """What keys and values are kept as between steps."""

    AUTO = "auto"
    """As the checkpoint says, which mostly is nothing: then in the type that is computed in."""
    FP8_E4M3FN = "fp8_e4m3fn"
    FP8_E4M3 = "fp8_e4m3"
    """Another name of the same."""
    FP8_E5M2 = "fp8_e5m2"


class RopeScaling(StrEnum):
    """How ROPE_SCALING stretches positions beyond what the model was trained on."""

    LINEAR = "linear"
    DYNAMIC = "dynamic"
