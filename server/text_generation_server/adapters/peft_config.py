"""Reads adapter_config.json as PEFT means it: which modules an adapter changes, of which rank, how strongly.

Knows no tensors and no model. What is not served is refused by its key.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from text_generation_server.modelfiles import JsonObject, read_object

CONFIG = "adapter_config.json"

T = TypeVar("T")

_ALL_LINEAR = "all-linear"

_REFUSED = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
    "use_qalora",
    "alora_invocation_tokens",
    "layer_replication",
)
"""Keys of what a pair of matrices beside a linear does not express."""

_HARMLESS_INITS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights with which training starts from the base model's own weights; others change those too."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Modules by name: those that match a pattern, or end in one of some names."""

    pattern: str | None
    names: tuple[str, ...]

    def has(self, module: str) -> bool:
        """Whether a module, by its whole name, is one of them."""
        if self.pattern is not None:
            return self.pattern == _ALL_LINEAR or re.fullmatch(self.pattern, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in self.names)


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """One adapter's configuration. Modules are named as in the base model, without PEFT's `base_model.model.`

    where: what messages call the file. layers: numbers of those that are changed, None for all; layer_names: what their
    list is called in names of modules, none for any.
    """

    where: str
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    by_root: bool
    parameters: Selection
    selected: Selection
    excluded: Selection
    layers: frozenset[int] | None
    layer_names: tuple[str, ...]

    def targets(self, module: str) -> bool:
        """Whether the adapter changes this module."""
        return self.selected.has(module) and not self.excluded.has(module) and self._in_layers(module)

    def targets_parameter(self, name: str) -> bool:
        """Whether the adapter changes this parameter, which PEFT does not find as a module."""
        return self.parameters.has(name)

    def rank_of(self, module: str) -> int:
        """The inner size of a module's, or a parameter's, pair."""
        return _by_pattern(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's product is multiplied by."""
        rank = self.rank_of(module)
        return _by_pattern(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.by_root else rank)

    def _in_layers(self, module: str) -> bool:
        if self.layers is None:
            return True
        lists = "|".join(self.layer_names) or r"[^.]*"
        found = re.match(rf".*\.(?:{lists})\.(\d+)\.", module)
        return found is not None and int(found[1]) in self.layers


def read_peft_config(directory: Path) -> PeftConfig:
    """The configuration in an adapter's directory.

    Raises:
        ModelNotFound: there is none.
        UnsupportedModel: it asks for something not served; the text names key and value.
    """
    file = read_object(directory / CONFIG)
    if file.get("peft_type", str) != "LORA":
        raise file.refusal("peft_type", "'LORA'")
    for key in _REFUSED:
        if file.values.get(key):
            raise file.refusal(key, "an adapter without it")
    if file.get("bias", str) not in (None, "none"):
        raise file.refusal("bias", "'none'")
    if file.values.get("init_lora_weights") not in _HARMLESS_INITS:
        raise file.refusal("init_lora_weights", "an adapter to the base model's own weights")
    layers = _layers(file)
    return PeftConfig(
        where=file.where,
        rank=_rank(file, "r"),
        alpha=_number(file, "lora_alpha"),
        ranks={pattern: _rank(ranks, pattern) for ranks in (file.section("rank_pattern"),) for pattern in ranks.values},
        alphas={p: _number(alphas, p) for alphas in (file.section("alpha_pattern"),) for p in alphas.values},
        by_root=bool(file.get("use_rslora", bool)),
        parameters=Selection(None, _texts(file, "target_parameters")),
        selected=_selection(file, "target_modules", required=not file.values.get("target_parameters")),
        excluded=_selection(file, "exclude_modules", required=False),
        layers=layers,
        layer_names=_texts(file, "layers_pattern"),
    )


def _by_pattern(values: Mapping[str, T], module: str, otherwise: T) -> T:
    """The value of the first pattern that is the module's name, or the end of it after a dot."""
    return next((value for key, value in values.items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


def _rank(file: JsonObject, key: str) -> int:
    value = file.get(key, int)
    if value is None or value < 1:
        raise file.refusal(key, "a whole number of at least 1")
    _check_pattern(file, key)
    return value


def _number(file: JsonObject, key: str) -> float:
    value = file.get(key, float)
    if value is None or not math.isfinite(value):
        raise file.refusal(key, "a number")
    _check_pattern(file, key)
    return float(value)


def _selection(file: JsonObject, key: str, required: bool) -> Selection:
    value = file.values.get(key)
    if isinstance(value, str):
        _check_pattern(file, value)
        return Selection(value, ())
    names = _texts(file, key)
    if required and not names:
        raise file.refusal(key, "names of modules, or a pattern of them")
    return Selection(None, names)


def _texts(file: JsonObject, key: str) -> tuple[str, ...]:
    """One string, or a list of some; none where the key is absent."""
    value = file.values.get(key)
    values = [value] if isinstance(value, str) else file.get(key, list) or []
    if not all(isinstance(text, str) for text in values):
        raise file.refusal(key, "a string, or a list of some")
    return tuple(values)


def _layers(file: JsonObject) -> frozenset[int] | None:
    """`layers_to_transform`: a number, or a list of some."""
    key = "layers_to_transform"
    value = file.values.get(key)
    values = [value] if isinstance(value, int) else file.get(key, list)
    if values is not None and not all(type(number) is int for number in values):
        raise file.refusal(key, "a layer's number, or a list of some")
    return None if values is None else frozenset(values)


def _check_pattern(file: JsonObject, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise file.refusal(pattern, f"a pattern ({error})") from error
