"""Which format a checkpoint is in, and what is made of plain weights: by the names that configs and operators use."""

from collections.abc import Callable, Mapping
from typing import Any

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.quantization.base import QuantScheme
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.awq import Awq
from text_generation_server.quantization.formats.bitsandbytes import Bitsandbytes, spelling
from text_generation_server.quantization.formats.compressed_tensors import CompressedTensors
from text_generation_server.quantization.formats.fp8 import Fp8
from text_generation_server.quantization.formats.gguf import Gguf
from text_generation_server.quantization.formats.gptq import Gptq
from text_generation_server.quantization.formats.made import FP4, NF4, Made, Make, float8, int8, of_table
from text_generation_server.quantization.formats.modelopt import modelopt
from text_generation_server.quantization.formats.mxfp4 import Mxfp4
from text_generation_server.quantization.scheme import CodedScheme, Format
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.quantised import TOLD

FORMATS: Mapping[str, Callable[[ConfigDict, DenseScheme], Format]] = {
    "awq": Awq.of,
    "bitsandbytes": Bitsandbytes.of,
    "compressed-tensors": CompressedTensors.of,
    "fp8": Fp8.of,
    "gguf": Gguf.of,
    "gptq": Gptq.of,
    "modelopt": modelopt,
    "mxfp4": Mxfp4.of,
}
"""Of checkpoints, by their `quant_method`."""

SPELLINGS: Mapping[str, Callable[[ConfigDict], str]] = {"bitsandbytes": spelling}
"""What --quantize may call a checkpoint of this method, beside the method's name."""

MADE: Mapping[str, Make] = {
    "bitsandbytes": int8,
    "bitsandbytes-fp4": of_table(FP4),
    "bitsandbytes-nf4": of_table(NF4),
    "eetq": int8,
    "fp8": float8,
}
"""Of plain checkpoints, by --quantize."""


def told_by(checkpoint: Checkpoint) -> ConfigDict | None:
    """What the oldest files say of themselves, in tensors: text-generation-inference wrote such ones with GPTQ."""
    if not all(checkpoint.has(name) for name in TOLD):
        return None
    bits, size = (int(checkpoint.view(name, (1,))) for name in TOLD)
    return ConfigDict({"quant_method": "gptq", "bits": bits, "group_size": size}, " and ".join(TOLD))


def scheme_of(found: ConfigDict | None, asked: str | None, dense: DenseScheme) -> QuantScheme[Any]:
    """How the linears of a checkpoint are read.

    found: what is written of its quantisation, None for plain weights. asked: by --quantize. Raises UnsupportedModel.
    """
    if found is None:
        if asked is None:
            return dense
        if asked not in MADE:
            raise UnsupportedModel(
                f"--quantize {asked} is for checkpoints that are quantised so, and config.json has no "
                f"quantization_config: leave it out, or give one of {', '.join(MADE)}"
            )
        return CodedScheme(Made(MADE[asked], dense), dense)
    method = found.text("quant_method").lower()
    if method not in FORMATS:
        raise found.refusal("quant_method", method, f"one of {', '.join(FORMATS)}, or a model that is not quantised")
    names = {method, SPELLINGS[method](found)} if method in SPELLINGS else {method}
    if asked is not None and asked not in names:
        raise UnsupportedModel(f"--quantize is {asked}, but the checkpoint is quantised by {method}: leave it out")
    return CodedScheme(FORMATS[method](found, dense), dense)
