"""What the router reads of a model's directory. Knows no shard."""

from dataclasses import dataclass
from pathlib import Path

from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.settings import Settings
from text_generation_router.tokenizer import Backend, find_model, load_backend, load_family
from text_generation_server.images.family import ImageFamily


@dataclass(frozen=True, slots=True)
class ModelText:
    """What is read of a model's directory. template: if it has one. sha: the hub's commit, if it is from there.

    dialect: how it writes calls and reasoning. images: how it takes them, if it does.
    """

    tokenizer: Backend
    template: ChatTemplate | None
    dialect: Dialect
    sha: str | None
    images: ImageFamily | None = None


def load_model(settings: Settings) -> ModelText:
    """Read it, which may take seconds, or longer from the hub. Raises StartError."""
    directory, sha = find_model(settings.tokenizer_name, settings.revision)
    tokenizer = load_backend(directory, settings.trust_remote_code)
    config = settings.tokenizer_config_path
    template = ChatTemplate.load(directory, settings.chat_template, Path(config) if config else None)
    text = "" if template is None else template.text
    dialect = Dialect.of(text, settings.tool_call_parser, settings.reasoning_parser)
    return ModelText(tokenizer, template, dialect, sha, load_family(directory))
