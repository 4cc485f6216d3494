"""Chat templates against transformers' own rendering, and what is refused."""

import json
from typing import Any

import jinja2
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from mocks.chats import CALL, FAMILIES, TOKENS, TOOL, assistant, parts, user
from text_generation_router.chat.messages import ContentFormat, content_format
from text_generation_router.chat.sandbox import Sandbox
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.errors import InvalidInput, TemplateFailed

TAKES_PARTS = {"gemma3": ContentFormat.BOTH, "parts": ContentFormat.PARTS}
ARGUMENTS_AS_TEXT = ("deepseek",)

REFUSED = {
    *((family, name) for family in ("chatml", "llama2", "zephyr") for name in ("called", "answered", "thought")),
    *(("gemma", name) for name in ("system", "tools")),
    *((family, "prefill-hidden") for family in ("deepseek", "qwen")),
    ("mistral", "no-answer"),
}
"""Conversations that a family's template does not take."""

SYSTEM = {"role": "system", "content": "Be brief.\nBe kind."}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "name": "weather", "content": '{"sun": true}'}
MULTI = [user('Hi, <you> & "me"'), assistant("  Hello!\n"), user(" Über? ")]

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one": ([user("Hi")], {}),
    "multi": (MULTI, {}),
    "system": ([SYSTEM, *MULTI], {}),
    "no-prompt": (MULTI, {"add_generation_prompt": False}),
    "parts": ([user(parts("One. ", "Two."))], {}),
    "tools": ([SYSTEM, user("Rain?")], {"tools": [TOOL]}),
    "called": ([user("Rain?"), assistant(None, tool_calls=[CALL]), RESULT], {"tools": [TOOL]}),
    "answered": ([user("Rain?"), assistant(None, tool_calls=[CALL]), RESULT, assistant("No."), user("Why?")], {}),
    "thought": ([user("Rain?"), assistant(None, reasoning="Hm.", tool_calls=[CALL]), RESULT], {"tools": [TOOL]}),
    "thinking-off": ([user("Hi")], {"extra": {"enable_thinking": False, "date_string": "1 May 2024"}}),
    "prefill": ([user("Count."), assistant("One, two,")], {"continue_final_message": True}),
    "prefill-space": ([user("Count."), assistant("One, two, ")], {"continue_final_message": True}),
    "prefill-parts": ([user("Count."), assistant(parts("One,", " two,"))], {"continue_final_message": True}),
    "prefill-hidden": ([user("Count."), assistant("a</think>b")], {"continue_final_message": True}),
    "no-answer": ([user("Hi"), user("Hi"), {"role": "critic", "content": "Hm"}], {}),
}


@pytest.fixture(scope="module")
def reference() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), **TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_prompts_are_those_of_transformers(family, conversation, reference):
    messages, wishes = CONVERSATIONS[conversation]
    template = ChatTemplate({"default": FAMILIES[family]}, TOKENS)
    try:
        rendered = template.render(messages, **wishes)
    except TemplateFailed:
        rendered = None
    options = {"add_generation_prompt": not wishes.get("continue_final_message", False), **wishes}
    options |= options.pop("extra", {})
    try:
        expected = reference.apply_chat_template(
            as_given_to_transformers(messages, family), chat_template=FAMILIES[family], tokenize=False, **options
        )
    except (ValueError, TypeError, jinja2.TemplateError):
        expected = None
    assert rendered == expected, "as of transformers 5.24"
    assert (rendered is None) == ((family, conversation) in REFUSED)


def as_given_to_transformers(messages: list[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """What a caller has to know of a template: the form of content, and whether arguments are objects."""
    made = json.loads(json.dumps(messages))
    for message in made:
        for call in message.get("tool_calls", []) if family not in ARGUMENTS_AS_TEXT else []:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        content = message["content"]
        if isinstance(content, list) and family not in TAKES_PARTS:
            message["content"] = "".join(part["text"] for part in content)
        if isinstance(content, str) and TAKES_PARTS.get(family) is ContentFormat.PARTS:
            message["content"] = parts(content)
    return made


def test_arguments_that_are_no_json_object_stay_as_a_model_has_written_them():
    template = ChatTemplate({"default": "{{ messages[0].tool_calls[0].function.arguments | tojson }}"}, {})
    for written, shown in {'{"a": 1}': '{"a": 1}', "": "{}", '{"a": ': '"{\\"a\\": "', "[1]": '"[1]"'}.items():
        call = {"function": {"name": "f", "arguments": written}}
        assert template.render([assistant("", tool_calls=[call])]) == shown


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_template_does_with_content_is_seen(family):
    form = content_format(Sandbox().parse(FAMILIES[family]))
    assert form is TAKES_PARTS.get(family, ContentFormat.TEXT)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Only one system message, please') }}", "Only one system message, please"),
        ("{{ nothing.at_all }}", "'nothing' is undefined"),
        ("{{ messages[0].content + 1 }}", r"can only concatenate str \(not \"int\"\) to str"),
        ("a\n{% for %}", r"the default template cannot be compiled: .* \(line 2\)"),
    ],
)
def test_a_template_refuses_in_its_own_words(source, reason):
    with pytest.raises(TemplateFailed, match=f"^Template error: {reason}$"):
        ChatTemplate({"default": source}, {}).render([user("Hi")])


@pytest.mark.parametrize(
    ("messages", "wishes", "reason"),
    [
        ([user([{"type": "image_url", "image_url": {}}])], {}, "a part of type 'image_url', which is not taken"),
        ([user([{"type": "video_url", "video_url": {}}])], {}, "a part of type 'video_url', which is not taken"),
        ([], {}, "`messages` cannot be empty"),
        ([user("Hi")], {"extra": {"messages": []}}, "`chat_template_kwargs` cannot set `messages`"),
    ],
)
def test_what_no_template_is_shown(messages, wishes, reason):
    with pytest.raises(InvalidInput, match=reason):
        ChatTemplate({"default": FAMILIES["chatml"]}, TOKENS).render(messages, **wishes)


def test_a_message_without_a_text_cannot_be_continued():
    with pytest.raises(TemplateFailed, match="the last message has no text to continue"):
        ChatTemplate({"default": FAMILIES["qwen"]}, TOKENS).render(
            [assistant(None, tool_calls=[CALL])], continue_final_message=True
        )
