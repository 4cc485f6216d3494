"""Rules in GBNF and in Lark's notation: which texts they let through."""

import pytest

from mocks.byte_tokenizer import ByteTokenizer
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.ebnf import MAX_CHARACTERS
from text_generation_server.grammar.grammar_type import GrammarType

VLLM = """
    root ::= select_statement
    select_statement ::= "SELECT " column " from " table
        " where " condition
    column ::= "col_1 " | "col_2 "
    table ::= "table_1 "  # or
      | "table_2 "
    condition ::= column "= " number
    number ::= "1 " | "2 "
"""
"""As vLLM's documentation has it, in more lines."""


def accepts(rules: str, text: str) -> bool:
    matcher = GrammarCompiler(ByteTokenizer(), 257).start(GrammarType.EBNF, rules).result().deep_copy()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("rules", "right", "wrong"),
    [
        (VLLM, "SELECT col_1  from table_2  where col_2 = 1 ", "SELECT col_1  from table_3  where col_2 = 1 "),
        ('root ::= "a" root? "b"', "aaabbb", "aab"),
        ('root ::= [^"#]+ "#" # an end\n  | "\\x41\\"#"', 'A"#', "a# an end"),
        ("root ::= digit{2,3}\ndigit ::= [0-9]", "123", "1"),
        ('start: "a" start? "b"', "aaabbb", "aab"),
        ('?start: sum\nsum: N ("+" N)*\nN: /[0-9]+/\n%ignore " "', "1 + 22+3", "1 + "),
        ('start: %json {"type": "array", "items": {"const": 1}}', "[1, 1]", "[2]"),
    ],
    ids=["vllm", "nested", "comment", "counted", "lark", "ignore", "json"],
)
def test_texts_that_follow_the_rules(rules: str, right: str, wrong: str) -> None:
    assert accepts(rules, right) and not accepts(rules, wrong)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("root ::= missing", "GBNF: Rule 'missing' not found"),
        ('top ::= "a"', "GBNF: No 'root' rule found"),
        ('root ::= "a', "GBNF: Unexpected end of input"),
        ("root ::= " + "(" * 9000, "GBNF: "),
        ('other: "a"', "no start rule found"),
        ("start: /(/", "unclosed group"),
        ('%llguidance {"no_forcing": false}\nstart: "a"', "leave them out"),
        ("", "no start rule found"),
        ('start: "a"' + " " * MAX_CHARACTERS, f"expected at most {MAX_CHARACTERS}"),
    ],
)
def test_rules_that_cannot_be_followed_say_why(rules: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        GrammarCompiler(ByteTokenizer(), 257).start(GrammarType.EBNF, rules).result()
    assert reason in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400
