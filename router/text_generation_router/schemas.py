"""Request bodies: their keys, types and defaults. What the values may be is the business of `validation`."""

from ctypes import c_float
from math import isinf
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

from text_generation_router.early import ending_early


def _on_the_wire(value: float) -> float:
    """The value as the shards get it: with 32 bits, of which some numbers are 0 or infinite."""
    rounded = c_float(value).value
    if isinf(rounded):
        raise PydanticCustomError("float32", "{value} is beyond what 32 bits hold, 3.4e38", {"value": value})
    return rounded


Float = Annotated[float, AfterValidator(_on_the_wire)]
Count = Annotated[int, Field(ge=0, lt=2**32)]
TokenIds = list[Count]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Priority = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TopK = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Body(BaseModel):
    """Types are taken literally, except that null stands for the default; unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What pydantic reads the body by."""
        return ending_early(handler(source))


class AdapterFields(Body):
    """The adapter that is asked for, by text-generation-inference's name or kv.run's."""

    adapter_id: str | None = None
    lora_id: str | None = None


class ServingFields(AdapterFields):
    """Whom a body of another API than the native one asks, and when it is served. timeout: in seconds.

    parameters: where the native API has the adapter.
    """

    parameters: AdapterFields | None = None
    priority: Priority | None = None
    timeout: Float | None = None


class JsonGrammar(Body):
    """A JSON schema, as an object or as its text."""

    type: Literal["json", "json_object"]
    value: Any


class OpenJsonGrammar(JsonGrammar):
    """A JSON schema of any value, where `JsonGrammar` is of objects only: as clients of other APIs mean it."""


class NamedSchema(Body):
    """A JSON schema with a name, which means nothing."""

    name: str | None = None
    json_schema: Any = Field(alias="schema")


class SchemaGrammar(Body):
    """A named JSON schema."""

    type: Literal["json_schema"]
    value: NamedSchema


class RegexGrammar(Body):
    """A regular expression that the whole answer must match."""

    type: Literal["regex"]
    value: str


class ChoiceGrammar(Body):
    """Texts, of which the whole answer is one."""

    type: Literal["choice"]
    value: list[str]


class EbnfGrammar(Body):
    """Rules that the whole answer must follow, as Lark or GBNF write them."""

    type: Literal["ebnf"]
    value: str


AnyGrammar = Annotated[
    JsonGrammar | SchemaGrammar | RegexGrammar | ChoiceGrammar | EbnfGrammar, Field(discriminator="type")
]


class GenerateParameters(Body):
    """`parameters` of the native routes; those from `min_p` on are not text-generation-inference's.

    count_penalty: what OpenAI calls frequency_penalty. timeout: in seconds.
    """

    best_of: Count | None = None
    temperature: Float | None = None
    repetition_penalty: Float | None = None
    frequency_penalty: Float | None = None
    top_k: TopK | None = None
    top_p: Float | None = None
    typical_p: Float | None = None
    do_sample: bool | None = None
    max_new_tokens: Count | None = None
    return_full_text: bool | None = None
    stop: list[str] | str | None = None
    truncate: Count | None = None
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: Seed | None = None
    top_n_tokens: Count | None = None
    grammar: AnyGrammar | None = None
    adapter_id: str | None = None
    lora_id: str | None = None
    min_p: Float | None = None
    presence_penalty: Float | None = None
    count_penalty: Float | None = None
    logit_bias: dict[Count, Float] | None = None
    ignore_eos: bool | None = None
    min_new_tokens: Count | None = None
    stop_token_ids: TokenIds | None = None
    priority: Priority | None = None
    timeout: Float | None = None

    @property
    def stop_sequences(self) -> tuple[str, ...]:
        """`stop`, which may be a list, one string or nothing."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def _without_parameters() -> GenerateParameters:
    """Requests that leave `parameters` out are sampled; those that give any are greedy unless they ask."""
    return GenerateParameters(do_sample=True)


class GenerateRequest(AdapterFields):
    """Body of `/generate` and `/generate_stream`, and with `stream` of `/`. input_ids: instead of `inputs`, then ""."""

    inputs: str
    input_ids: TokenIds | None = None
    given: GenerateParameters | None = Field(default=None, alias="parameters")
    stream: bool | None = None

    @property
    def parameters(self) -> GenerateParameters:
        """The parameters, or their defaults."""
        return self.given if self.given is not None else _without_parameters()


class TokenizeRequest(Body):
    """Body of `/tokenize`."""

    inputs: str


class DetokenizeRequest(Body):
    """Body of `/detokenize`."""

    tokens: list[Count]
    skip_special_tokens: bool | None = None


class ChatTokenizeRequest(Body):
    """Body of `/chat_tokenize`: what a chat's prompt depends on; the rest of a chat's body means nothing here."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
