"""Messages, a tool, and chat templates in the shapes of well-known families, written for these tests."""

from pathlib import Path
from typing import Any

FAMILIES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))}
"""Templates by name."""

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
NESTED = {"type": "object", "properties": {"days": {"type": "array", "items": {"enum": ["Mo", "Tu"]}}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "when": NESTED}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The <weather>", "parameters": SCHEMA}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]
