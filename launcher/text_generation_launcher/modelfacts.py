"""What the launcher goes by of a model, read as the shard reads it. Does not judge whether the model can be served."""

from dataclasses import dataclass
from pathlib import Path

from text_generation_server.architectures.registry import has_architecture, read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import POSITION_KEYS, read_max_positions
from text_generation_server.errors import StartError
from text_generation_server.specs.decoder import DecoderSpec, PositionLimit


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """How long sequences may get, and the spec of a decoder that has an architecture here; None: not known."""

    max_positions: PositionLimit | None = None
    spec: DecoderSpec | None = None


def read_facts(folder: Path) -> ModelFacts:
    """The facts of the model in a folder; none of one that the shard will refuse, which says why."""
    try:
        return facts_of(ConfigDict.load(folder / "config.json"))
    except StartError:
        return ModelFacts()


def facts_of(config: ConfigDict) -> ModelFacts:
    """What a config.json says. Raises UnsupportedModel, naming key and value."""
    if has_architecture(config):
        spec = read_spec(config)
        return ModelFacts(spec.max_positions, spec if isinstance(spec, DecoderSpec) else None)
    text = config.section("text_config") if config.get("text_config") else config
    return ModelFacts(read_max_positions(text, *POSITION_KEYS))
