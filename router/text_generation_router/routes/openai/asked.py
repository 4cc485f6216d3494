"""What clients of OpenAI's API ask for, in the words of the native API, whose rules hold then. Knows no answers."""

from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.openai.schemas import (
    GenerationBody,
    JsonFormat,
    ResponseFormat,
    SchemaFormat,
    TextFormat,
)
from text_generation_router.schemas import AnyGrammar, GenerateParameters, GenerateRequest, JsonGrammar, SchemaGrammar
from text_generation_server.errors import excerpt

_ANY_OBJECT = {"properties": {}, "additionalProperties": True}
"""A schema of every JSON object."""


def prompt_request(body: GenerationBody, text: str, max_tokens: int | None, top: int | None) -> GenerateRequest:
    """The native request for a prompt. top: alternatives to each token. Raises InvalidInput."""
    _check_keys(body)
    greedy = body.temperature == 0
    parameters = GenerateParameters(
        # Greedy decoding has nothing to cut; on the wire these would ask for a draw.
        temperature=None if greedy else body.temperature,
        top_p=None if greedy else body.top_p,
        top_k=None if greedy else body.top_k,
        do_sample=not greedy,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        max_new_tokens=max_tokens,
        stop=body.stop,
        seed=None if body.seed is None else body.seed % 2**64,
        top_n_tokens=top,
        grammar=_grammar(body.response_format),
        adapter_id=body.adapter_id,
        lora_id=body.lora_id,
    )
    return GenerateRequest(inputs=text, parameters=parameters)


def _check_keys(body: GenerationBody) -> None:
    given: dict[str, Any] = body.model_extra or {}
    for name, neutral in body.CANNOT.items():
        if given.get(name) not in neutral:
            raise InvalidInput(
                f"`{name}` is not supported by this version of the router; leave it out. "
                f"Given: {excerpt(repr(given[name]))}"
            )


def _grammar(wanted: ResponseFormat | None) -> AnyGrammar | None:
    match wanted:
        case None | TextFormat():
            return None
        case JsonFormat(type="json_object", value=None):
            return JsonGrammar(type="json", value=_ANY_OBJECT)
        case JsonFormat(value=schema):
            return JsonGrammar(type="json", value=schema)
        case SchemaFormat(json_schema=named, value=other):
            if (schema := named or other) is None:
                raise InvalidInput("`response_format` of type json_schema needs a `json_schema` with a `schema`")
            return SchemaGrammar(type="json_schema", value=schema)
        case regex:
            return regex
