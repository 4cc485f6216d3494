"""Calls as DeepSeek V3, R1 and V3.1 write them. Source: their chat templates."""

from text_generation_router.chat.formats.calls import Calls, among_text, closing
from text_generation_router.chat.formats.source import Source, Steps

ALL, BEGIN, SEPARATOR, END, ALL_END = (
    f"<｜tool▁{name}｜>" for name in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end")
)
MARKS = frozenset({ALL, BEGIN, SEPARATOR, END, ALL_END})
_FENCE, _FENCE_END = "```json", "```"


def deepseek(source: Source, calls: Calls) -> Steps[None]:
    """Kind and name of a tool around a separator and its arguments in a fence, or from V3.1 on its name and they."""
    yield from among_text(source, calls, {ALL: _calls, BEGIN: _call, END: closing, ALL_END: closing})


def _calls(source: Source, calls: Calls) -> Steps[None]:
    yield from source.expect(BEGIN)
    yield from _call(source, calls)


def _call(source: Source, calls: Calls) -> Steps[None]:
    name = yield from source.take_past(SEPARATOR)
    if (yield from source.pass_space()) == "{":
        yield from calls.with_json(source, name.strip())
        return
    name = yield from source.take_past(_FENCE)
    yield from calls.with_json(source, name.strip())
    yield from source.skip(_FENCE_END)
