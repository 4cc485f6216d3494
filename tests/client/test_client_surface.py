"""The names, arguments and fields of the published client are there, in its order: user code runs unchanged."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import text_generation
from text_generation import AsyncClient, Client, errors, types

GENERATE = {
    "prompt": inspect.Parameter.empty,
    "do_sample": False,
    "max_new_tokens": 20,
    "best_of": None,
    "repetition_penalty": None,
    "frequency_penalty": None,
    "return_full_text": False,
    "seed": None,
    "stop_sequences": None,
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "truncate": None,
    "typical_p": None,
    "watermark": False,
    "decoder_input_details": False,
    "top_n_tokens": None,
    "grammar": None,
}
GENERATE_STREAM = {
    name: default for name, default in GENERATE.items() if name not in ("best_of", "decoder_input_details")
}
CHAT = {
    "messages": inspect.Parameter.empty,
    "repetition_penalty": None,
    "frequency_penalty": None,
    "logit_bias": None,
    "logprobs": None,
    "top_logprobs": None,
    "max_tokens": None,
    "n": None,
    "presence_penalty": None,
    "stream": False,
    "seed": None,
    "temperature": None,
    "top_p": None,
    "tools": None,
    "tool_choice": None,
}
CONSTRUCTOR = {"base_url": inspect.Parameter.empty, "headers": None, "cookies": None, "timeout": 10}
OURS = ["adapter_id", "lora_id"]

FIELDS = {
    types.Grammar: ["type", "value"],
    types.Parameters: [
        "do_sample", "max_new_tokens", "repetition_penalty", "frequency_penalty", "return_full_text", "stop", "seed",
        "temperature", "top_k", "top_p", "truncate", "typical_p", "best_of", "watermark", "details",
        "decoder_input_details", "top_n_tokens", "grammar",
    ],
    types.Request: ["inputs", "parameters", "stream"],
    types.InputToken: ["id", "text", "logprob"],
    types.Token: ["id", "text", "logprob", "special"],
    types.BestOfSequence: [
        "generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens", "top_tokens",
    ],
    types.Details: [
        "finish_reason", "generated_tokens", "seed", "prefill", "tokens", "top_tokens", "best_of_sequences",
    ],
    types.Response: ["generated_text", "details"],
    types.StreamDetails: ["finish_reason", "generated_tokens", "seed"],
    types.StreamResponse: ["token", "top_tokens", "generated_text", "details"],
    types.ToolCall: ["id", "type", "function"],
    types.Message: ["role", "content", "name", "tool_calls"],
    types.Tool: ["type", "function"],
    types.ChatCompletionComplete: ["index", "message", "logprobs", "finish_reason", "usage"],
    types.Function: ["name", "arguments"],
    types.ChoiceDeltaToolCall: ["index", "id", "type", "function"],
    types.ChoiceDelta: ["role", "content", "tool_calls"],
    types.Choice: ["index", "delta", "logprobs", "finish_reason"],
    types.ChatCompletionChunk: ["id", "object", "created", "model", "system_fingerprint", "choices"],
    types.ChatComplete: ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"],
    types.ChatRequest: ["model", *CHAT],
}  # fmt: skip
ERRORS = [
    "ValidationError", "GenerationError", "OverloadedError", "IncompleteGenerationError", "BadRequestError",
    "ShardNotReadyError", "ShardTimeoutError", "NotFoundError", "RateLimitExceededError", "UnknownError",
]  # fmt: skip


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "self"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_published_arguments_come_first_in_their_order(client: type[Client | AsyncClient]) -> None:
    for function, published in ((client.generate, GENERATE), (client.generate_stream, GENERATE_STREAM)):
        ours = _defaults(function)
        assert list(ours) == [*published, *OURS]
        assert {name: ours[name] for name in published} == published
    for function, published in ((client.chat, CHAT), (client, CONSTRUCTOR)):
        ours = _defaults(function)
        assert list(ours.items())[: len(published)] == list(published.items())


@pytest.mark.parametrize("client", [Client("http://h"), AsyncClient("http://h", {"a": "b"}, {"c": "d"}, 3)])
def test_the_constructor_keeps_what_it_was_given(client: Client | AsyncClient) -> None:
    assert client.base_url == "http://h"
    assert (client.headers, client.cookies, client.timeout) in [(None, None, 10), ({"a": "b"}, {"c": "d"}, 3)]


@pytest.mark.parametrize("model", FIELDS, ids=lambda model: model.__name__)
def test_types_have_the_published_fields(model: type[BaseModel]) -> None:
    assert set(FIELDS[model]) <= set(model.model_fields)


def test_enumerations_have_the_published_members() -> None:
    assert {member.name: member.value for member in types.FinishReason} == {
        "Length": "length",
        "EndOfSequenceToken": "eos_token",
        "StopSequence": "stop_sequence",
    }
    assert {member.name: member.value for member in types.GrammarType} == {"Json": "json", "Regex": "regex"}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_the_published_names(name: str) -> None:
    error = getattr(errors, name)("text")
    assert isinstance(error, Exception)
    assert str(error) == "text"


def test_modules_have_the_published_names() -> None:
    module = importlib.import_module("text_generation.client")
    assert (module.Client, module.AsyncClient) == (text_generation.Client, text_generation.AsyncClient)
    assert text_generation.__version__
