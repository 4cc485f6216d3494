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
from text_generation_router.routes.openai.structured import ANY_OBJECT, only_one
from text_generation_router.schemas import (
    AdapterFields,
    AnyGrammar,
    GenerateParameters,
    GenerateRequest,
    OpenJsonGrammar,
    ServingFields,
)


def made_chat(fields: Mapping[str, Any], serving: ServingFields | None = None) -> ChatBody:
    """A chat that another API's request was made. serving: who answers it, and when. Raises InvalidBody."""
    kept = {} if serving is None else serving.model_dump(include=set(ServingFields.model_fields))
    try:
        return ChatBody.model_validate({**fields, **kept})
    except ValidationError as error:
        raise invalid_body(error) from error


def prompt_request(
    body: GenerationBody, text: str, max_tokens: int | None, top: int | None, grammar: AnyGrammar | None = None
) -> GenerateRequest:
    """The native request for a prompt. top: alternatives to each token. Raises InvalidInput.

    grammar: what the answer must match, if that is not what the body says.
    """
    body.check_keys()
    inner = body.parameters or AdapterFields()
    parameters = GenerateParameters(
        **body.sampling(),
        max_new_tokens=max_tokens,
        top_n_tokens=top,
        grammar=grammar or form_grammar(body),
        adapter_id=inner.adapter_id,
        lora_id=inner.lora_id,
        priority=body.priority,
        timeout=body.timeout,
    )
    return GenerateRequest(inputs=text, parameters=parameters, adapter_id=body.adapter_id, lora_id=body.lora_id)


def form_grammar(body: GenerationBody) -> AnyGrammar | None:
    """What a body says that the answer must match. Raises InvalidInput."""
    return only_one({"response_format": _grammar(body.response_format), **body.grammars()})


def _grammar(wanted: ResponseFormat | None) -> AnyGrammar | None:
    match wanted:
        case None | TextFormat():
            return None
        case JsonFormat(type="json_object", value=None):
            return OpenJsonGrammar(type="json", value=ANY_OBJECT)
        case JsonFormat(value=schema):
            return OpenJsonGrammar(type="json", value=schema)
        case SchemaFormat(json_schema=named, value=other):
            if (schema := named or other) is None:
                raise InvalidInput("`response_format` of type json_schema needs a `json_schema` with a `schema`")
            return OpenJsonGrammar(type="json", value=schema.json_schema)
        case regex:
            return regex
