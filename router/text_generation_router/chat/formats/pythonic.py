"""Calls as Python writes them, in a list: Llama 4 and 3.2 by Meta's own prompts, and LFM2.

Known only when the list is whole. Source: Meta's prompt format of Llama 3.2, Liquid's model cards.
"""

import ast
import json
import warnings
from collections.abc import Iterator
from typing import Any

from text_generation_router.chat.formats.calls import Calls, among_text, attempt, closing
from text_generation_router.chat.formats.nesting import Broken
from text_generation_router.chat.formats.source import Source, Steps

BEGINS, ENDS = ("<|tool_call_start|>", "<|python_start|>"), ("<|tool_call_end|>", "<|python_end|>")
MARKS = frozenset({*BEGINS, *ENDS})

_JSON = {"true": True, "false": False, "null": None}


def pythonic(source: Source, calls: Calls) -> Steps[None]:
    """[name(key=value, …), …] as the answer's begin, or between marks."""
    if (yield from source.peek()) == "[":
        source.keep()
        yield from attempt(source, calls, _list)
    yield from among_text(source, calls, {**dict.fromkeys(BEGINS, _list), **dict.fromkeys(ENDS, closing)})


def _list(source: Source, calls: Calls) -> Steps[None]:
    if (yield from source.pass_space()) != "[":
        raise Broken
    for name, arguments in _parsed((yield from source.python())):
        yield from calls.whole(source, name, arguments)


def _parsed(text: str) -> Iterator[tuple[str, str]]:
    """Names and arguments. Raises Broken for anything but calls with constants."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            found = _Constants().visit(ast.parse(text, mode="eval")).body
        assert isinstance(found, ast.List)
        calls = [_call(element) for element in found.elts]
    except (SyntaxError, ValueError, TypeError, AssertionError, RecursionError, MemoryError) as error:
        raise Broken from error
    if not calls:
        raise Broken
    yield from calls


def _call(node: ast.expr) -> tuple[str, str]:
    assert isinstance(node, ast.Call) and not node.args
    arguments: dict[str, Any] = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return ast.unparse(node.func), json.dumps(arguments, ensure_ascii=False, allow_nan=False)


class _Constants(ast.NodeTransformer):
    """Reads JSON's constants too: lists and objects of arguments are often written as JSON."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A name that stands for a constant."""
        return ast.Constant(_JSON[node.id]) if node.id in _JSON else node
