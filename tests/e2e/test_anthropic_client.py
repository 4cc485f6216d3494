"""The `anthropic` package talks to a real model."""

from collections.abc import Iterator

import pytest
from anthropic import Anthropic

ASKED = {
    "model": "any",
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    "extra_body": {"temperature": 0},
}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}}, "required": ["city"]}


@pytest.fixture(scope="module")
def client(server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def test_a_message_answers_and_ends(client):
    whole = client.messages.create(**ASKED)
    assert "Paris" in whole.content[0].text and whole.stop_reason == "end_turn"
    counted = client.messages.count_tokens(model="any", messages=ASKED["messages"])
    assert counted.input_tokens == whole.usage.input_tokens == 42
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage == whole.usage


def test_a_tool_that_must_be_called_is_called(client):
    tools = [{"name": "weather", "description": "Tells the weather of a city", "input_schema": CITY}]
    choice = {"type": "tool", "name": "weather"}
    answer = client.messages.create(**ASKED, tools=tools, tool_choice=choice)
    (call,) = answer.content
    assert answer.stop_reason == "tool_use" and call.name == "weather" and list(call.input) == ["city"]
