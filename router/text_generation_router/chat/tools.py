"""The tools that a chat's request offers, and which of them must be called. Knows neither formats nor templates.

Source: OpenAI's API reference; names as choices, and the rule about grammars, are text-generation-inference's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from text_generation_router.errors import InvalidInput, ToolFailed
from text_generation_server.errors import excerpt

Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tools:
    """What may be called.

    offered: as the client sent them. schemas: of their arguments, by name. forced: the names of those of which one
    must be called, none if none must. parallel: whether an answer may have several calls.
    """

    offered: Sequence[Tool]
    schemas: Mapping[str, Mapping[str, Any]]
    forced: Sequence[str] = ()
    parallel: bool = True

    def grammar(self) -> dict[str, Any]:
        """The JSON schema of the calls that are forced: one, or a list of them."""
        places = list(self.schemas)
        calls = [_call(name, f"#/$defs/{places.index(name)}") for name in self.forced]
        one = {"anyOf": calls} if len(calls) > 1 else calls[0]
        many = {"anyOf": [{"type": "array", "items": one, "minItems": 1}]}
        defined = {str(place): _moved(self.schemas[name], f"#/$defs/{place}") for place, name in enumerate(places)}
        return {"$defs": defined, **(many if self.parallel else one)}


def offered_tools(tools: Sequence[Tool] | None, choice: Any, parallel: bool | None) -> Tools | None:
    """What a request offers; None if nothing is to be called. Raises InvalidInput, ToolFailed."""
    schemas = dict(map(_named, tools or ()))
    mode, names, one = _choice(choice)
    for name in names:
        if name not in schemas:
            raise ToolFailed(f"Tool with name {excerpt(name)} not found", "tool_choice")
    if not schemas and mode == "required":
        raise InvalidInput("`tool_choice` asks for a call, but there are no `tools`")
    if not schemas or tools is None or mode == "none":
        return None
    if names:
        schemas = {name: schemas[name] for name in names}
    return Tools(tools, schemas, tuple(schemas) if mode == "required" else (), parallel is not False and not one)


def _choice(choice: Any) -> tuple[str, Sequence[str], bool]:
    """Whether a call must be, may be, or must not be; of which tools, if not of all; whether it is one call only."""
    match choice:
        case None:
            return "auto", (), False
        case "auto" | "none" | "required":
            return choice, (), False
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            return "required", (name,), True
        case {"function": {"name": str(name)}} if choice.get("type") is None:  # as huggingface_hub spells it
            return "required", (name,), True
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            return mode, tuple(_name(tool) for tool in allowed), False
    raise InvalidInput(
        "`tool_choice` must be auto, none, required, or "
        f'{{"type": "function", "function": {{"name": …}}}}. Given: {excerpt(repr(choice))}'
    )


def _named(tool: Tool) -> tuple[str, Mapping[str, Any]]:
    """A tool's name, and the schema of its arguments."""
    name = _name(tool)
    function = tool["function"]
    schema = function.get("parameters", function.get("arguments"))
    if schema is not None and not isinstance(schema, dict):
        raise InvalidInput(f"`tools` has a function {excerpt(name)} whose `parameters` are no JSON schema")
    return name, schema or {"type": "object", "properties": {}}


def _name(tool: Any) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} if name:
            return name
    raise InvalidInput(
        '`tools` must be of the form {"type": "function", "function": {"name": …, "parameters": …}}. '
        f"Given: {excerpt(repr(tool))}"
    )


def _call(name: str, schema: str) -> dict[str, Any]:
    properties = {"name": {"const": name}, "arguments": {"$ref": schema}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _moved(schema: Any, place: str) -> Any:
    """A schema that has become a part of another, with its references to itself led there."""
    if isinstance(schema, list):
        return [_moved(part, place) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference.removeprefix("#")
    return moved
