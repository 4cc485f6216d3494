"""Tells from config.json whether weights are quantised, and by what. Knows no checkpoint and no architecture."""

from text_generation_server.config.configdict import ConfigDict

_METHODS = ("quant_method", "quant_algo")
_SECTIONS = {
    "quantization": "MLX",
    "quantization_config": "a method that it does not name",
    "compression_config": "compressed-tensors",
}
"""Where it is said, and what says it there without a name."""


def refuse_quantised(config: ConfigDict) -> None:
    """Raise UnsupportedModel, naming key and method, for the config of a quantised model."""
    for key, unnamed in _SECTIONS.items():
        value = config.get(key)
        if value is None:
            continue
        named = next((name for name in _METHODS if isinstance(value, dict) and value.get(name)), None)
        if named is not None:
            raise config.refusal(f"{key}.{named}", value[named], "a model that is not quantised")
        raise config.refusal(key, value, f"a model that is not quantised; this one is by {unnamed}")
