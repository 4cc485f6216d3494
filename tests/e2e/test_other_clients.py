"""Packages of others, as they are published, talk to a real model: `make test-clients` puts them beside each other.

They are no dependencies of the tests, which skip what is not there.
"""

import asyncio
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)


TOOL = {
    "type": "function",
    "function": {"name": "City", "description": "Tells of a city", "parameters": City.model_json_schema()},
}


def without(name: str, wanted: str = "") -> pytest.MarkDecorator:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    here = found == wanted if wanted else bool(found)
    return pytest.mark.skipif(not here, reason=f"no {name} {wanted}".rstrip())


@without("text-generation", "0.7.0")
@pytest.mark.filterwarnings("ignore")
def test_the_published_client_of_text_generation_inference(server):
    from text_generation import AsyncClient, Client
    from text_generation.errors import ValidationError

    client = Client(server.url, timeout=60)
    whole = client.generate("1, 2, 3,", max_new_tokens=6, top_n_tokens=2, decoder_input_details=True)
    assert whole.generated_text.startswith(" 4, 5") and len(whole.details.tokens) == 6
    streamed = [response.token.text for response in client.generate_stream("1, 2, 3,", max_new_tokens=6)]
    assert "".join(streamed) == whole.generated_text
    with pytest.raises(ValidationError, match="cannot be empty"):
        client.generate("", max_new_tokens=1)
    chat = client.chat(messages=QUESTION, max_tokens=20, temperature=0.01, seed=1)
    assert "Paris" in chat.choices[0].message.content and chat.usage["completion_tokens"] > 3
    call = client.chat(messages=QUESTION, max_tokens=60, tools=[TOOL], tool_choice="City").choices[0].message
    assert call.content is None and call.tool_calls[0]["function"]["name"] == "City"

    async def at_once() -> list[str]:
        asked = (AsyncClient(server.url).generate("1, 2, 3,", max_new_tokens=6) for _ in range(4))
        return [answer.generated_text for answer in await asyncio.gather(*asked)]

    assert asyncio.run(at_once()) == [whole.generated_text] * 4


@without("litellm")
@pytest.mark.filterwarnings("ignore")
def test_litellm(server, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    openai: dict[str, Any] = {"model": "openai/any", "api_base": f"{server.url}/v1", "api_key": "none"}
    asked = {"messages": QUESTION, "max_tokens": 20, "temperature": 0}
    for named in (openai, {**openai, "model": "anthropic/any", "api_base": server.url}):
        assert "Paris" in litellm.completion(**named, **asked).choices[0].message.content
        chunks = litellm.completion(**named, **asked, stream=True)
        assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        forced = litellm.completion(**named, **asked | {"max_tokens": 60}, tools=[TOOL], tool_choice="required")
        assert forced.choices[0].message.tool_calls[0].function.name == "City"
    hub = litellm.completion(model="huggingface/tgi", api_base=server.url, api_key="none", **asked)
    assert "Paris" in hub.choices[0].message.content
    assert litellm.responses(input="Hi", max_output_tokens=5, **openai).status == "incomplete"


@without("langchain-openai")
@pytest.mark.filterwarnings("ignore")
def test_langchain(server):
    from langchain_openai import ChatOpenAI, OpenAI

    served: dict[str, Any] = {"model": "any", "base_url": f"{server.url}/v1", "api_key": "none", "temperature": 0}
    question = QUESTION[0]["content"]
    for more in ({}, {"use_responses_api": True}):
        model = ChatOpenAI(**served, max_tokens=60, **more)
        assert "Paris" in model.invoke(question).text
        assert "Paris" in "".join(chunk.text for chunk in model.stream(question))
        (call,) = (
            model.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False).invoke(question).tool_calls
        )
        assert call["name"] == "City" and list(call["args"]) == ["name"]
        assert isinstance(model.with_structured_output(City).invoke(question), City)
    assert OpenAI(**served, max_tokens=6).invoke("1, 2, 3,").startswith(" 4, 5")


@without("instructor")
@pytest.mark.filterwarnings("ignore")
def test_instructor(server):
    import anthropic
    import instructor
    from openai import OpenAI

    asked = {"model": "any", "messages": QUESTION, "response_model": City, "max_tokens": 80, "max_retries": 0}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(OpenAI(base_url=f"{server.url}/v1", api_key="none"), mode=mode)
        assert isinstance(client.chat.completions.create(**asked, temperature=0), City)
    other = instructor.from_anthropic(anthropic.Anthropic(base_url=server.url, api_key="none"))
    assert isinstance(other.messages.create(**asked), City)


@without("prometheus-client")
def test_prometheus_reads_the_metrics(server):
    from prometheus_client.parser import text_string_to_metric_families

    families = {one.name: one for one in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)}
    assert families["tgi_request_duration"].type == "histogram" and families["tgi_queue_size"].type == "gauge"
    assert all(family.samples and family.documentation for family in families.values())


@without("schemathesis")
@pytest.mark.timeout(900)
def test_schemathesis_finds_the_document_kept(launch, tmp_path):
    """Requests made from the document, and broken ones; of events it expects another document than TGI's too."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    url = f"{launch('--max-total-tokens', '24', '--max-input-tokens', '20').url}/api-doc/openapi.json"
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    wishes = ["--checks", checks, "--phases", "examples,coverage", "--seed", "1", "--suppress-health-check", "all"]
    wishes += ["--request-timeout", "60"]  # a busy machine takes more than the 10 seconds that it waits by itself
    fetches, streams = "/download_lora_adapter", ("/", "/generate_stream")
    left_out = [word for path in (fetches, *streams) for word in ("--exclude-path", path)]
    command = [program, "run", url, *wishes, *left_out, "--continue-on-failure"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=880)
    assert ran.returncode == 0, ran.stdout[-6000:]
