"""What clients of OpenAI's API ask for, in the words of the native API, whose rules hold then. Knows no answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.openai.schemas import (
    GenerationBody,
    JsonFormat,
    ResponseFormat,
    SchemaFormat,
    TextFormat,
)
from text_generation_router.routes.openai.structured import ANY_OBJECT, only_one
from text_generation_router.schemas import AnyGrammar, GenerateParameters, GenerateRequest, OpenJsonGrammar
from text_generation_server.errors import excerpt


@dataclass(frozen=True, slots=True)
class Asked:
    """Generations that one request asks for.

    prompts: one a text. special_tokens: whether the tokenizer puts them around. logprobs: whether the answer has them.
    candidates: among so many answers to each prompt the likeliest are looked for. echo: whether prompts are told too.
    """

    body: GenerationBody
    prompts: Sequence[GenerateRequest]
    special_tokens: bool
    logprobs: bool
    candidates: int | None = None
    echo: bool = False

    @property
    def told(self) -> int:
        """How many answers each prompt gets."""
        return 1 if self.body.n is None else self.body.n

    @property
    def choices(self) -> int:
        """How many are generated for each prompt."""
        return self.told if self.candidates is None else self.candidates

    @property
    def top(self) -> int:
        """How many alternatives to each token are told."""
        return self.prompts[0].parameters.top_n_tokens or 0

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return self.prompts[0].parameters.stop_sequences


def prompt_request(body: GenerationBody, text: str, max_tokens: int | None, top: int | None) -> GenerateRequest:
    """The native request for a prompt. top: alternatives to each token. Raises InvalidInput."""
    _check_keys(body)
    parameters = GenerateParameters(
        **body.sampling(),
        max_new_tokens=max_tokens,
        top_n_tokens=top,
        grammar=only_one({"response_format": _grammar(body.response_format), **body.grammars()}),
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
            return OpenJsonGrammar(type="json", value=ANY_OBJECT)
        case JsonFormat(value=schema):
            return OpenJsonGrammar(type="json", value=schema)
        case SchemaFormat(json_schema=named, value=other):
            if (schema := named or other) is None:
                raise InvalidInput("`response_format` of type json_schema needs a `json_schema` with a `schema`")
            return OpenJsonGrammar(type="json", value=schema.json_schema)
        case regex:
            return regex
