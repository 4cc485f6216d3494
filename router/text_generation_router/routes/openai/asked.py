"""What clients of OpenAI's API ask for, in the words of the native API, whose rules hold then. Knows no answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from text_generation_router.chat.reader import PLAIN, AnswerForm
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


@dataclass(frozen=True, slots=True)
class Asked:
    """Generations that one request asks for.

    prompts: one a text. choices: how many answers to each. special_tokens: whether the tokenizer puts them around.
    logprobs: whether the answer has them. form: how the answers are read.
    """

    body: GenerationBody
    prompts: Sequence[GenerateRequest]
    special_tokens: bool
    logprobs: bool
    form: AnswerForm = PLAIN

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return 1 if self.body.n is None else self.body.n

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return self.prompts[0].parameters.stop_sequences


def prompt_request(
    body: GenerationBody, text: str, max_tokens: int | None, top: int | None, grammar: AnyGrammar | None = None
) -> GenerateRequest:
    """The native request for a prompt. top: alternatives to each token. Raises InvalidInput.

    grammar: what the answer must match, if that is not what the body says.
    """
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
        grammar=grammar or asked_grammar(body.response_format),
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
