"""The `openai` package talks to a real model."""

import re
from collections.abc import Iterator

import httpx
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


def said(client, **fields):
    """A greedy completion of a prompt that counts."""
    asked = {"model": "any", "prompt": "1, 2, 3, 4,", "max_tokens": 12, "temperature": 0, **fields}
    return client.completions.create(**asked)


def test_what_people_send_acts(client, server):
    (five,) = (token["id"] for token in httpx.post(f"{server.url}/tokenize", json={"inputs": "5"}).json())
    plain = said(client).choices[0].text
    assert plain.startswith(" 5, 6, 7")
    assert "5" not in said(client, logit_bias={str(five): -100}).choices[0].text
    assert said(client, logit_bias={str(five): 100}).choices[0].text == "5" * 12
    for field in ("presence_penalty", "frequency_penalty"):
        varied = said(client, **{field: 2.0}, max_tokens=40, logprobs=0).choices[0].logprobs.tokens
        assert len(set(varied)) > len(set(said(client, max_tokens=40, logprobs=0).choices[0].logprobs.tokens))
    ended = said(client, extra_body={"stop_token_ids": [five]})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == (" ", "stop")
    assert ended.usage.completion_tokens == 2
    late = said(client, extra_body={"stop_token_ids": [five], "min_tokens": 6}).choices[0]
    assert "5" not in late.text and len(late.text) > 5
    free = said(client, temperature=1.5, seed=3, extra_body={"min_p": 1.0})
    assert free.choices[0].text == plain  # nothing but the best is as likely as the best


def test_an_answer_goes_on_where_it_would_end(client):
    short = client.chat.completions.create(model="any", messages=QUESTION, temperature=0)
    length = short.usage.completion_tokens
    for field, value in (("min_tokens", length + 5), ("ignore_eos", True)):
        fields = {"max_tokens": length + 9, "extra_body": {field: value}}
        longer = client.chat.completions.create(model="any", messages=QUESTION, temperature=0, **fields)
        assert longer.usage.completion_tokens >= length + 5
        assert longer.choices[0].message.content.startswith(short.choices[0].message.content)


def test_a_prompt_of_ids_is_echoed_and_computed_once_for_all_answers(client, server):
    text = "The quick brown fox jumps over the lazy dog. " * 12
    ids = [token["id"] for token in httpx.post(f"{server.url}/tokenize", json={"inputs": text}).json()]
    assert len(ids) > 100

    def hits() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("tgi_prefix_cache_hit_tokens "))

    before = hits()
    answer = said(client, prompt=ids, n=2, echo=True, temperature=1.0, seed=1)
    assert all(choice.text.startswith(text) for choice in answer.choices)
    assert len({choice.text for choice in answer.choices}) == 2
    assert answer.usage.prompt_tokens == len(ids) and hits() - before > len(ids) / 2


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"guided_choice": ["Paris", "Rome (Italy)"]}, r"Paris|Rome \(Italy\)"),
        ({"guided_regex": "[A-Z]{3}-[0-9]{2}"}, "[A-Z]{3}-[0-9]{2}"),
        (
            {"guided_grammar": 'root ::= city " is " ("big" | "small")\ncity ::= [A-Z] [a-z]{2,5}'},
            "[A-Z][a-z]{2,5} is (big|small)",
        ),
        ({"structured_outputs": {"grammar": 'start: "yes" ", sir"? | "no"'}}, "yes(, sir)?|no"),
        (
            {"structured_outputs": {"json": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}}},
            r"\[[12,\s]*\]",
        ),
    ],
    ids=["choice", "regex", "gbnf", "lark", "json"],
)
def test_answers_have_the_form_that_vllms_users_write(client, form, pattern):
    fields = {"temperature": 1.2, "seed": 7, "max_tokens": 60, "extra_body": form}
    answer = client.chat.completions.create(model="any", messages=QUESTION, **fields).choices[0]
    assert re.fullmatch(pattern, answer.message.content) and answer.finish_reason == "stop"


def test_errors_have_the_clients_types(client):
    with pytest.raises(UnprocessableEntityError) as refused:
        client.chat.completions.create(model="any", messages=QUESTION, logit_bias={"5": 101})
    assert refused.value.param == "logit_bias" and refused.value.type == "invalid_request_error"
    with pytest.raises(NotFoundError):
        client.models.retrieve("other")
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id) == listed
