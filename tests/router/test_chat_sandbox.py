"""What a chat template may not do, and where it must end."""

import pytest

from mocks.chats import FAMILIES, TOKENS, assistant, user
from text_generation_router.chat.sandbox import BUDGET, STEP
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.errors import TemplateFailed

HOSTILE = {
    "attributes": ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    "changes": ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
    "names": ("{% set ns = namespace(a=1) %}{% set ns.__x__ = 1 %}", "names do not begin with an underscore"),
    "files": ("{% include '/etc/passwd' %}", "no loader"),
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "come to an end"),
    "filtered loops": (
        "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
        "come to an end",
    ),
    "macros": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "to an end",
    ),
    "endless macros": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "output": ("{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}", "come to an end"),
    "texts": (
        "{% set ns = namespace(t='xx') %}{% for a in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "come to an end",
    ),
    "breaks": ("{% break %}", "cannot be compiled: 'break' outside loop"),
    "half a character": ("{{ '\\ud800' }}", "surrogates not allowed"),
    "products": ("{{ 'x' * 10**12 }}", "come to an end"),
    "powers": ("{{ 9 ** 9 ** 9 ** 9 ** 9 ** 9 ** 9 ** 9 }}", "come to an end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_is_kept_in(name, monkeypatch):
    monkeypatch.setattr("text_generation_router.chat.sandbox.BUDGET", 1000 * STEP)
    source, reason = HOSTILE[name]
    with pytest.raises(TemplateFailed, match=f"^Template error: .*{reason}"):
        ChatTemplate({"default": source}, {}).render([user("Hi")])


def test_a_conversation_as_long_as_a_request_may_be_is_within_the_budget():
    turns = [user("x" * 200), assistant("y" * 200)] * 4500
    text = ChatTemplate({"default": FAMILIES["qwen"]}, TOKENS).render([*turns, user("z")])
    assert len(text) > 1_800_000 and 10 * len(turns) < BUDGET // STEP
