"""What is said of a grammar that cannot be used: one short line that a client can act on."""

import json

import pytest

from mocks.byte_tokenizer import ByteTokenizer
from text_generation_server.errors import QUOTED, InvalidRequest, excerpt
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.grammar_type import GrammarType

LONG = "z" * 5000
OVERLAP = {"oneOf": [{"type": "integer"}, {"type": "number"}]}


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (GrammarType.REGEX, f"({LONG}", "unclosed group"),
        (GrammarType.REGEX, rf"\b{LONG}", "lookarounds"),
        (GrammarType.JSON, json.dumps({"properties": {}, "title": LONG, "not": {}}), 'Unimplemented keys: ["not"]'),
        (GrammarType.JSON, json.dumps({"type": LONG}), "Invalid type: z"),
        (GrammarType.JSON, json.dumps({"type": "string", "format": LONG}), "Unknown format: z"),
        (GrammarType.JSON, json.dumps({"type": "string", "pattern": f"({LONG}"}), "unclosed group"),
        (GrammarType.JSON, json.dumps({"$ref": f"#/{LONG}"}), "does not exist"),
        (GrammarType.JSON, json.dumps({"type": "object", "required": LONG}), "Expected array for 'required'"),
        (GrammarType.JSON, json.dumps(OVERLAP | {"title": LONG}), "write anyOf"),
        (GrammarType.JSON, f'{{"minimum": {"1" * 5000}}}', "thousands of digits"),
        (GrammarType.JSON, f'{{"const": {"[" * 100_000}', "too deeply"),
        (GrammarType.JSON, f"{LONG}", "no JSON"),
    ],
)
def test_a_refusal_is_one_line_that_quotes_little(kind: GrammarType, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        GrammarCompiler(ByteTokenizer(), 257).start(kind, text).result()
    told = str(refused.value)
    assert reason in told and "\n" not in told and told.count("z") <= QUOTED
    assert "x-guidance" not in told and "option" not in told and "sys." not in told and "llguidance" not in told


def test_excerpts_keep_both_ends() -> None:
    assert excerpt("a" * QUOTED) == "a" * QUOTED
    cut = excerpt("a" + LONG + "b")
    assert cut.startswith("az") and cut.endswith("zb") and cut.count("z") == QUOTED - 2
