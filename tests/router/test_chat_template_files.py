"""Where chat templates and their tokens come from, against transformers' own loading."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from mocks.chats import TOOL, user
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.errors import StartError

A, B, C = (f"{letter}{{{{ bos_token }}}}" for letter in "abc")


def config(**values: Any) -> dict[str, str]:
    return {"tokenizer_config.json": json.dumps(values)}


PLACES: dict[str, dict[str, str]] = {
    "a file": {"chat_template.jinja": A, **config(chat_template=B, bos_token="<s>")},
    "a key": config(chat_template=A, bos_token={"__type": "AddedToken", "content": "<s>"}, image_token="<i>"),
    "a list": config(chat_template=[{"name": "default", "template": A}, {"name": "tool_use", "template": B}]),
    "files": {
        "chat_template.jinja": A,
        "additional_chat_templates/tool_use.jinja": B,
        "additional_chat_templates/rag.jinja": C,
    },
    "an older map": {
        "special_tokens_map.json": '{"bos_token": "<old>", "cls_token": "<c>"}',
        **config(chat_template="{{ bos_token }}{{ cls_token }}{{ eos_token }}", bos_token="<s>"),
    },
    "a map beside added tokens": {
        "special_tokens_map.json": '{"bos_token": "<old>"}',
        **config(chat_template=A, bos_token="<s>", added_tokens_decoder={}),
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_templates_and_tokens_are_found_where_transformers_finds_them(place, tmp_path):
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, PLACES[place])
    template = ChatTemplate.load(tmp_path, None)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert template is not None
    for tools in (None, [TOOL]):
        expected = theirs.apply_chat_template([user("Hi")], tools=tools, tokenize=False)
        assert template.render([user("Hi")], tools=tools) == expected, "as of transformers 5.24"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_an_option_goes_before_the_files_of_the_model(tmp_path):
    write(
        tmp_path, {"chat_template.jinja": A, "other/config.json": json.dumps({"chat_template": B, "bos_token": "<o>"})}
    )
    write(tmp_path, {"other/c.jinja": C, "other/tokens.json": '{"bos_token": "<t>"}'})

    def prompt(override: str | None, config: str | None) -> str:
        template = ChatTemplate.load(tmp_path, override, tmp_path / config if config else None)
        assert template is not None
        return template.render([user("Hi")], tools=[TOOL])

    assert prompt(None, None) == "a"
    assert prompt(None, "other/config.json") == "b<o>"
    write(tmp_path, {"special_tokens_map.json": '{"bos_token": "<m>"}'})
    assert prompt(None, "other/tokens.json") == "a<t>" and prompt(None, None) == "a<m>"
    assert prompt(C, "other/config.json") == prompt(str(tmp_path / "other" / "c.jinja"), "other/config.json") == "c<o>"


def test_a_model_may_have_no_template_or_one_that_nothing_can_read(tmp_path):
    assert ChatTemplate.load(tmp_path, None) is None
    for place in ("processor_config.json", "chat_template.json"):
        write(tmp_path, {place: json.dumps({"chat_template": f"of {place}"})})
        template = ChatTemplate.load(tmp_path, None)
        assert template is not None and template.text == f"of {place}"
    write(tmp_path, {"chat_template.jinja": "{% if %}"})
    broken = ChatTemplate.load(tmp_path, None)
    assert broken is not None and broken.broken is not None


@pytest.mark.parametrize(
    ("files", "override", "text"),
    [
        ({}, "no/such/file", "--chat-template is neither a template nor a file with one: there is no no/such/file"),
        ({}, "{% if %}", "--chat-template: the default template cannot be compiled"),
        (config(chat_template=[{"name": "default"}]), None, "chat_template is .*, expected a template, or a list"),
        (config(chat_template=7), None, "chat_template is 7, expected a template"),
    ],
)
def test_what_cannot_be_used_is_told_at_the_start(files, override, text, tmp_path):
    write(tmp_path, files)
    with pytest.raises(StartError, match=text):
        ChatTemplate.load(tmp_path, override)
