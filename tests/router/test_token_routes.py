"""Texts and their tokens, and what a chat becomes, by what is on the wire."""

import pytest

from mocks.fake_shard import BOS, EOS
from mocks.running_router import running_router

TEMPLATE = """{{ bos_token or '<s>' }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{{ raise_exception('No rules') }}{% endif %}
    {{- message.role[0] + ':' + message.content + eos_token }}
{%- endfor %}
{%- for tool in tools or [] %}{{ tool.function.name }}{% endfor %}
{{- prefix | default('') }}
{%- if add_generation_prompt %}a:{% endif %}
"""


async def test_tokenize_gives_byte_offsets(directory):
    async with running_router(directory) as router:
        pieces = (await router.client.post("/tokenize", json={"inputs": "aé€🙂"})).json()
        assert [list(piece) for piece in pieces] == [["id", "text", "start", "stop"]] * 11
        spans = [(piece["text"], piece["start"], piece["stop"]) for piece in pieces]
        euro, smile = ("€", 3, 6), ("🙂", 6, 10)
        assert spans == [("", 0, 0), ("a", 0, 1), *[("é", 1, 3)] * 2, *[euro] * 3, *[smile] * 4]


async def test_detokenize_gives_the_text_back(directory):
    async with running_router(directory) as router:
        ids = [piece["id"] for piece in (await router.client.post("/tokenize", json={"inputs": "aé🙂"})).json()]
        answer = await router.client.post("/detokenize", json={"tokens": ids})
        assert answer.json() == {"text": f"{BOS}aé🙂"}
        answer = await router.client.post("/detokenize", json={"tokens": [*ids, 99_999], "skip_special_tokens": True})
        assert answer.json() == {"text": "aé🙂"}
        for wrong in ([-1], ["a"], "a", None):
            assert (await router.client.post("/detokenize", json={"tokens": wrong})).status_code == 422


async def test_a_chat_becomes_a_prompt_without_further_special_tokens(directory):
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    hi = {"role": "user", "content": "Hé"}
    async with running_router(directory) as router:
        answer = (await router.client.post("/chat_tokenize", json={"messages": [hi]})).json()
        assert list(answer) == ["tokenize_response", "templated_text"]
        assert answer["templated_text"] == f"{BOS}u:Hé{EOS}a:"
        texts = [piece["text"] for piece in answer["tokenize_response"]]
        assert texts == [BOS, "u", ":", "H", "é", "é", EOS, "a", ":"]
        assert answer["tokenize_response"][-1] == {
            "id": answer["tokenize_response"][2]["id"],
            "text": ":",
            "start": 13,
            "stop": 14,
        }
        begun = [hi, {"role": "assistant", "content": [{"type": "text", "text": "So"}]}]
        tool = {"type": "function", "function": {"name": "f"}}
        for wishes, end in [
            ({"messages": begun}, "a:So"),
            ({"messages": begun, "continue_final_message": False}, f"a:So{EOS}a:"),
            ({"messages": [hi], "add_generation_prompt": False}, f"{EOS}"),
            ({"messages": [hi], "tools": [tool], "temperature": 7}, f"{EOS}fa:"),
            ({"messages": [hi], "chat_template_kwargs": {"prefix": "-"}}, f"{EOS}-a:"),
        ]:
            answer = await router.client.post("/chat_tokenize", json={**wishes, "model": "tgi"})
            assert answer.json()["templated_text"].endswith(end)
        assert await router.metric("tgi_request_count") == await router.metric("tgi_request_success") == 6
        refused = await router.client.post("/chat_tokenize", json={"messages": [{"role": "system", "content": "x"}]})
        assert refused.status_code == 422
        assert refused.json() == {"error": "Template error: No rules", "error_type": "template_error"}
        assert await router.metric('tgi_request_failure{err="template"}') == 1


async def test_chats_need_a_template(directory):
    async with running_router(directory, template=None) as router:
        answer = await router.client.post("/chat_tokenize", json={"messages": [{"role": "user", "content": "Hi"}]})
        assert answer.status_code == 422
        assert answer.json() == {"error": "Template error: template not found", "error_type": "template_error"}


@pytest.mark.parametrize("option", ["chat_template", "tokenizer_config_path"])
async def test_options_tell_another_template(directory, option):
    (directory / "chat_template.jinja").write_text("the model's")
    (directory / "other.json").write_text('{"chat_template": "the option{{ s }}"}')
    value = "the option{{ s }}" if option == "chat_template" else str(directory / "other.json")
    async with running_router(directory, options={option: value}) as router:
        answer = await router.client.post("/chat_tokenize", json={"messages": [{"role": "user", "content": "Hi"}]})
        assert answer.json()["templated_text"] == "the option"
