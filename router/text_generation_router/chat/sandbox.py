"""Where chat templates run: jinja2 as transformers sets it up, without access to Python, and with an end.

A template is the model's, and may be wrong; what it works on is a client's. So every rendering has a budget: `BUDGET`
characters, which it pays for texts and lists that it shows, keeps, filters, or calls something with, and `STEP` more
for each of these and each turn of a loop: half a million steps at most. Nothing grows from turn to turn without being
kept, so memory and time are bounded, but for what one operation of Python makes of few arguments: padding, a width in
a format.

Knows nothing of messages. Source: transformers' documentation of chat templates; checked against version 5.24.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

BUDGET = 2**26
"""Characters that one rendering may make: some 30 times of what a request may be long by default."""

STEP = 128
"""What a step costs, in characters."""

_INSTANT = frozenset({"length", "count", "first", "last", "default", "d"})
"""Filters that take as long for a long list as for a short one."""

_PAID = " paid"
"""A filter that templates cannot name."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of a model's templates; its templates may be rendered by any thread."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.context_class = _Bounded
        self.filters |= {"tojson": _to_json, _PAID: _paid}
        self.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _Namespace, "dict": _new_dict}
        del self.globals["lipsum"]  # makes as much text as it is asked for

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something for a template, which pays for it."""
        _pay(__context, STEP + sum(map(_length, args)) + sum(map(_length, kwargs.values())))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply for a template, which pays for the result before it is there."""
        _pay(context, _length_of_product(left, right) if operator == "*" else _length_of_power(left, right))
        return super().call_binop(context, operator, left, right)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        """jinja2's hook between parsing and compiling: say where a template pays."""
        for filtered in list(source.find_all(nodes.Filter)):
            if filtered.node is not None and filtered.name not in _INSTANT:
                filtered.node = _pays(filtered.node)
        for output in list(source.find_all(nodes.Output)):
            output.nodes = [_pays(node) for node in output.nodes]
        for assignment in list(source.find_all(nodes.Assign)):
            assignment.node = _pays(assignment.node)
        for loop in list(source.find_all(nodes.For)):
            loop.body.insert(0, nodes.ExprStmt(_pays(nodes.Const(True)), lineno=loop.lineno))
            loop.test = loop.test and nodes.And(_pays(nodes.Const(True)), loop.test)
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init)


class _Bounded(Context):
    """The variables of one rendering, and what is left of its budget, which contexts made of it share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.left = [BUDGET]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        """See jinja2."""
        context = super().derived(locals)
        assert isinstance(context, _Bounded)
        context.left = self.left
        return context


def _pay(context: Context, characters: int) -> None:
    assert isinstance(context, _Bounded)
    context.left[0] -= characters
    if context.left[0] < 0:
        raise TemplateRuntimeError(
            f"the template does not come to an end within {BUDGET // STEP} steps or {BUDGET} characters; "
            "shorten the conversation, or serve with another --chat-template"
        )


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple)) else 0


def _length_of_product(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length()
    count = next((value for value in (left, right) if isinstance(value, int)), 0)
    return (_length(left) + _length(right)) * max(count, 0)


def _length_of_power(left: Any, right: Any) -> int:
    return left.bit_length() * abs(right) if isinstance(left, int) and isinstance(right, int) else 0


def _pays(value: Any) -> nodes.Expr:
    """An expression with the same value that is paid for."""
    return nodes.Filter(value, _PAID, [], [], None, None, lineno=value.lineno)


@pass_context
def _paid(context: Context, value: Any) -> Any:
    _pay(context, STEP + _length(value))
    return value


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained on, which is nothing to us."""

    tags = {"generation"}  # noqa: RUF012 - an attribute of instances for jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, with variables of its own."""
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


class _Namespace(Namespace):
    """Values that outlive a loop's turn; none has the name of something internal."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args  # `self` may be a value's name
        values = dict(*rest, **kwargs)
        _check_names(iter(values))
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_names(iter((name,)))
        super().__setitem__(name, value)


def _check_names(names: Iterator[Any]) -> None:
    for name in names:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace has no {name!r}: names do not begin with an underscore")


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict`, without the class and its methods."""
    return dict(*args, **kwargs)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, where jinja2's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
