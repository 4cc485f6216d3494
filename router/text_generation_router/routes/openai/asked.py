"""What clients of OpenAI's API ask for, in the words of the native API, whose rules hold then. Knows no answers."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from text_generation_router.errors import InvalidInput
from text_generation_router.responses import invalid_body
from text_generation_router.routes.openai.schemas import (
    ChatBody,
    GenerationBody,
    JsonFormat,
    ResponseFormat,
    SchemaFormat,
    TextFormat,
)
from text_generation_router.schemas import AnyGrammar, GenerateParameters, GenerateRequest, JsonGrammar, SchemaGrammar

_ANY_OBJECT = {"properties": {}, "additionalProperties": True}
"""A schema of every JSON object."""


def made_chat(fields: Mapping[str, Any]) -> ChatBody:
    """A chat that another API's request was made. Raises InvalidBody."""
    try:
        return ChatBody.model_validate(fields)
    except ValidationError as error:
        raise invalid_body(error) from error


def prompt_request(
    body: GenerationBody, text: str, max_tokens: int | None, top: int | None, grammar: AnyGrammar | None = None
) -> GenerateRequest:
    """The native request for a prompt. top: alternatives to each token. Raises InvalidInput.

    grammar: what the answer must match, if that is not what the body says.
    """
    body.check_keys()
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
        grammar=grammar or asked_grammar(body.response_format),
        adapter_id=body.adapter_id,
        lora_id=body.lora_id,
    )
    return GenerateRequest(inputs=text, parameters=parameters)


def asked_grammar(wanted: ResponseFormat | None) -> AnyGrammar | None:
    """What a form of answers means. Raises InvalidInput."""
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
