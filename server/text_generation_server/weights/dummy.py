"""From what --model-id says to a model directory without weights, for those that are made up. Knows no tensors."""

import hashlib
import json
from pathlib import Path

from text_generation_server.errors import StartError, UnsupportedModel
from text_generation_server.modelfiles import JsonObject, read_object
from text_generation_server.tokenization.formats import has_tokenizer
from text_generation_server.tokenization.made_up import BYTES, made_up_tokenizer
from text_generation_server.weights.atomic import build_once
from text_generation_server.weights.hub import CONFIGURATION
from text_generation_server.weights.remote import HubSettings, Report
from text_generation_server.weights.source import locate, say_nothing

_FORMAT = 1
"""Partition of a made directory's name: raise it when what is put there changes."""


def locate_without_weights(model_id: str, revision: str | None, hub: HubSettings, report: Report = say_nothing) -> Path:
    """The directory with a model's config.json and tokenizer; nothing else is needed or looked for.

    Where there is no tokenizer, one directory is made in the cache with a tokenizer of a token a byte. Its config.json
    names no end token, so that every answer is as long as was asked for.

    Raises ModelNotFound, and UnsupportedModel for a vocabulary that bytes do not fit into.
    """
    directory = locate(model_id, revision, hub, report, extension=CONFIGURATION)
    if has_tokenizer(directory):
        return directory
    content = read_object(directory / "config.json")
    config = json.dumps(content.values).encode()
    target = hub.converted_cache / f"{directory.name}-{hashlib.sha256(config).hexdigest()[:12]}-{_FORMAT}"
    try:
        made = build_once(target, lambda draft: _write(draft, content))
    except OSError as error:
        raise StartError(f"no tokenizer could be made for {directory} in {target}: {error}") from error
    report(f"{directory} has no tokenizer: taking one of a token a byte, in {made}")
    return made


def _write(directory: Path, config: JsonObject) -> None:
    size = config.get("vocab_size", int) or config.get("padded_vocab_size", int) or 0
    if size < BYTES:
        raise UnsupportedModel(
            f"config.json has a vocabulary of {size or 'no size'}, expected {BYTES} tokens or more for a tokenizer of "
            "bytes: add the model's tokenizer.json"
        )
    made_up_tokenizer(size).save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps({**config.values, "eos_token_id": None}), encoding="utf-8")
