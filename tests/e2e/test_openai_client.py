"""The `openai` package talks to a real model."""

from collections.abc import Iterator

import pytest
from openai import NotFoundError, OpenAI, UnprocessableEntityError, pydantic_function_tool
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


class City(BaseModel):
    name: str = Field(max_length=20)
    inhabitants: int = Field(ge=1, le=10**8)


class Nothing(BaseModel):
    pass


@pytest.fixture(scope="module")
def client(server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def test_a_chat_answers_and_ends(client):
    answer = client.chat.completions.create(model="any", messages=QUESTION, temperature=0)
    (choice,) = answer.choices
    assert "Paris" in choice.message.content and "<|im_end|>" not in choice.message.content
    assert choice.finish_reason == "stop" and answer.id and answer.model == "any"
    # The template puts a system message in front; nothing is added twice.
    usage = answer.usage
    assert usage.prompt_tokens == 42 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    stream = client.chat.completions.create(
        model="any", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage == usage and last.choices == []


def test_an_answer_is_a_model_of_pydantic(client):
    asked = [{"role": "user", "content": "Tell me about Paris, in JSON."}]
    answer = client.chat.completions.parse(model="any", messages=asked, response_format=City, temperature=0)
    assert isinstance(answer.choices[0].message.parsed, City)


def test_responses_say_what_chats_say(client):
    question = QUESTION[0]["content"]
    chat = client.chat.completions.create(model="any", messages=QUESTION, temperature=0)
    whole = client.responses.create(model="any", input=question, temperature=0)
    assert whole.output_text == chat.choices[0].message.content and whole.usage.input_tokens == 42
    with client.responses.stream(model="any", input=question, temperature=0) as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == whole.output_text
    parsed = client.responses.parse(model="any", input="Tell me about Paris.", text_format=City, temperature=0)
    assert isinstance(parsed.output_parsed, City)


def test_a_tool_is_called(client):
    asked = [{"role": "user", "content": "Which city is the capital of France, and how many live there?"}]
    tools = [pydantic_function_tool(City, name="tell"), pydantic_function_tool(Nothing, name="skip")]
    wishes = {"model": "any", "messages": asked, "tools": tools, "temperature": 0, "parallel_tool_calls": False}
    named = {"type": "function", "function": {"name": "skip"}}
    (choice,) = client.chat.completions.parse(**wishes, tool_choice=named).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert [call.function.parsed_arguments for call in choice.message.tool_calls] == [Nothing()]
    with client.chat.completions.stream(**wishes, tool_choice="required") as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, City | Nothing)


def test_completions_go_on_with_prompts(client):
    answer = client.completions.create(
        model="any",
        prompt=["The capital of France is", "1, 2, 3, 4,"],
        max_tokens=12,
        temperature=0,
        stop=" 7",
        logprobs=1,
    )
    france, numbers = answer.choices
    assert france.text.startswith(" Paris") and france.logprobs.tokens[0] == " Paris"
    assert numbers.text == " 5, 6," and numbers.finish_reason == "stop"
    stream = client.completions.create(
        model="any", prompt="1, 2, 3, 4,", max_tokens=12, temperature=0, stop=" 7", stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == numbers.text


def test_errors_have_the_clients_types(client):
    with pytest.raises(UnprocessableEntityError) as refused:
        client.chat.completions.create(model="any", messages=QUESTION, logit_bias={"5": 1})
    assert refused.value.param == "logit_bias" and refused.value.type == "invalid_request_error"
    with pytest.raises(NotFoundError):
        client.models.retrieve("other")
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id) == listed
