"""Finds what is written beside a model of its weights' quantisation. Knows no checkpoint and no architecture."""

from pathlib import Path

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.modelfiles import read_optional_object

METHOD = "quant_method"

_SECTIONS = {"quantization_config": None, "compression_config": "compressed-tensors"}
"""Keys of config.json, and the method where none is named."""

_FILES = {
    "quantize_config.json": ("gptq", None),
    "quant_config.json": ("awq", None),
    "hf_quant_config.json": ("modelopt", "quantization"),
}
"""Files of some writers, likewise, and the key under which all is."""

_METHOD_WITH_ALGORITHMS = "modelopt"
"""Whose sections may name a `quant_algo` alone."""


def quantisation_of(directory: Path, config: ConfigDict) -> ConfigDict | None:
    """The section or file that says how weights are quantised, with its `quant_method`; None for plain weights.

    Raises UnsupportedModel, naming the key, where it is said in a way that is not read.
    """
    if config.get("quantization") is not None:
        expected = "a model that is not quantised; this one is by MLX"
        raise config.refusal("quantization", config.get("quantization"), expected)
    for key, method in _SECTIONS.items():
        if config.get(key) is None:
            continue
        section = config.section(key)
        algorithm = None if section.get("quant_algo") is None else _METHOD_WITH_ALGORITHMS
        named = section.get(METHOD) or algorithm or method
        if named is None:
            raise config.refusal(key, config.get(key), f"{METHOD} in it, or a model that is not quantised")
        return section.replaced(quant_method=named)
    for name, (usual, inner) in _FILES.items():
        if values := read_optional_object(directory / name).values:
            found = ConfigDict(values, str(directory / name))
            found = found if inner is None else found.section(inner)
            return found.replaced(quant_method=found.get(METHOD) or usual)
    return None


_KV_ALGORITHM = "kv_cache_quant_algo"


def says_narrow_keys(found: ConfigDict) -> bool:
    """Whether keys and values are to be kept in 8 bits of float, with one scale for those of a layer.

    By `kv_cache_scheme`, an object as compressed-tensors and ModelOpt write it, or AutoFP8's word; or by
    `kv_cache_quant_algo` of older ModelOpt. Raises UnsupportedModel for any other scheme.
    """
    key = "kv_cache_scheme"
    if found.get(key) is None and found.get(_KV_ALGORITHM) is not None:
        if found.get(_KV_ALGORITHM) != "FP8":
            raise found.refusal(_KV_ALGORITHM, found.get(_KV_ALGORITHM), "FP8, or none")
        return True
    said = found.get(key)
    if not said or said == "static":
        return bool(said)
    expected = "8 bits of float, a scale for each layer that is in the checkpoint, or none"
    if not isinstance(said, dict):
        raise found.refusal(key, said, expected)
    usual = {"type": "int", "num_bits": 8, "strategy": "tensor", "dynamic": False, "symmetric": True}
    asked = usual | {name: said[name] for name in usual if said.get(name) is not None}
    if asked != usual | {"type": "float"}:
        raise found.refusal(key, said, expected)
    return True


def refuse_quantised(directory: Path, config: ConfigDict) -> None:
    """Raise UnsupportedModel, naming the method, for a quantised model."""
    found = quantisation_of(directory, config)
    if found is not None:
        raise found.refusal(METHOD, found.get(METHOD), "a model that is not quantised")
