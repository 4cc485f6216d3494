"""Fields of OpenAI's bodies that prescribe the form of the answer in vLLM's words, beside OpenAI's `response_format`.

Source: vLLM's "Structured outputs": `structured_outputs`, and `guided_…`, as it was called before. Knows no prompts.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from text_generation_router.errors import InvalidInput
from text_generation_router.schemas import (
    AnyGrammar,
    Body,
    ChoiceGrammar,
    EbnfGrammar,
    OpenJsonGrammar,
    RegexGrammar,
)

ANY_OBJECT = {"properties": {}, "additionalProperties": True}
"""A schema of every JSON object."""


class StructuredOutputs(Body):
    """`structured_outputs`. What else it may have tells a server how to do it."""

    json_schema: Any = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None

    def grammars(self) -> dict[str, AnyGrammar]:
        """What it asks for, by the names of its fields."""
        if self.structural_tag is not None:
            raise InvalidInput("`structured_outputs` cannot have a `structural_tag` here; write a `grammar`")
        wanted = _grammars(self.json_schema, self.regex, self.choice, self.grammar)
        if self.json_object:
            wanted["json_object"] = OpenJsonGrammar(type="json", value=ANY_OBJECT)
        return {f"structured_outputs.{name}": grammar for name, grammar in wanted.items()}


class StructuredFields(Body):
    """What chats and completions share."""

    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    def grammars(self) -> dict[str, AnyGrammar]:
        """What they ask for, by the names of the fields."""
        guided = _grammars(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        newer = self.structured_outputs.grammars() if self.structured_outputs else {}
        return {f"guided_{name}": grammar for name, grammar in guided.items()} | newer


def only_one(grammars: Mapping[str, AnyGrammar | None]) -> AnyGrammar | None:
    """The one that is asked for, by names of fields. Raises InvalidInput if there are several."""
    wanted = {name: grammar for name, grammar in grammars.items() if grammar is not None}
    if len(wanted) > 1:
        names = " and ".join(f"`{name}`" for name in wanted)
        raise InvalidInput(f"{names} each prescribe the form of the answer; leave all but one out")
    return next(iter(wanted.values()), None)


def _grammars(schema: Any, regex: str | None, choice: list[str] | None, rules: str | None) -> dict[str, AnyGrammar]:
    wanted: dict[str, AnyGrammar] = {}
    if schema is not None:
        wanted["json"] = OpenJsonGrammar(type="json", value=schema)
    if regex is not None:
        wanted["regex"] = RegexGrammar(type="regex", value=regex)
    if choice is not None:
        wanted["choice"] = ChoiceGrammar(type="choice", value=choice)
    if rules is not None:
        wanted["grammar"] = EbnfGrammar(type="ebnf", value=rules)
    return wanted
