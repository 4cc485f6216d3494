"""What is said of a grammar that cannot be used: one short line that a client can act on."""

import json

import pytest

from mocks.byte_tokenizer import ByteTokenizer
from text_generation_server.engine.types import GrammarKind
from text_generation_server.errors import QUOTED, InvalidRequest, excerpt
from text_generation_server.grammar.compiler import GrammarCompiler

LONG = "z" * 5000
OVERLAP = {"oneOf": [{"type": "integer"}, {"type": "number"}]}


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (GrammarKind.REGEX, f"({LONG}", "unclosed group"),
        (GrammarKind.REGEX, rf"\b{LONG}", "lookarounds"),
        (GrammarKind.JSON, json.dumps({"properties": {}, "title": LONG, "not": {}}), 'Unimplemented keys: ["not"]'),
        (GrammarKind.JSON, json.dumps({"type": LONG}), "Invalid type: z"),
        (GrammarKind.JSON, json.dumps({"type": "string", "format": LONG}), "Unknown format: z"),
        (GrammarKind.JSON, json.dumps({"type": "string", "pattern": f"({LONG}"}), "unclosed group"),
        (GrammarKind.JSON, json.dumps({"$ref": f"#/{LONG}"}), "does not exist"),
        (GrammarKind.JSON, json.dumps({"type": "object", "required": LONG}), "Expected array for 'required'"),
        (GrammarKind.JSON, json.dumps(OVERLAP | {"title": LONG}), "write anyOf"),
        (GrammarKind.JSON, f'{{"minimum": {"1" * 5000}}}', "thousands of digits"),
        (GrammarKind.JSON, f'{{"const": {"[" * 100_000}', "too deeply"),
        (GrammarKind.JSON, f"{LONG}", "no JSON"),
    ],
)
def test_a_refusal_is_one_line_that_quotes_little(kind: GrammarKind, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        GrammarCompiler(ByteTokenizer(), 257).start(kind, text).result()
    told = str(refused.value)
    assert reason in told and "\n" not in told and told.count("z") <= QUOTED
    assert "x-guidance" not in told and "option" not in told and "sys." not in told and "llguidance" not in told


def test_excerpts_keep_both_ends() -> None:
    assert excerpt("a" * QUOTED) == "a" * QUOTED
    cut = excerpt("a" + LONG + "b")
    assert cut.startswith("az") and cut.endswith("zb") and cut.count("z") == QUOTED - 2
