"""A real model answers in the form that clients prescribe, alone, in company and cut over three ranks."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from huggingface_hub import InferenceClient

from text_generation import Client
from text_generation.types import Grammar, GrammarType

PERSON = {
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["French", "German", "Latin"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "age", "languages"],
}
DATE = r"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]"
ABOUT = "Marie Curie, a physicist, as a JSON object: "


@pytest.fixture(scope="module", params=["server", "ranked"])
def url(request) -> str:
    return request.getfixturevalue(request.param).url


def generate(url: str, inputs: str, **parameters) -> dict:
    answer = httpx.post(f"{url}/generate", json={"inputs": inputs, "parameters": parameters}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_json_follows_its_schema(server):
    for seed in range(2):
        wanted = {"grammar": {"type": "json", "value": PERSON}, "temperature": 1.2, "seed": seed, "details": True}
        answer = generate(server.url, ABOUT, max_new_tokens=200, **wanted)
        person = json.loads(answer["generated_text"])
        assert list(person) == ["name", "age", "languages"]
        assert len(person["name"]) <= 30 and 1 <= person["age"] <= 120
        assert set(person["languages"]) <= {"French", "German", "Latin"} and 1 <= len(person["languages"]) <= 2
        assert answer["details"]["finish_reason"] == "eos_token"


def test_rows_with_and_without_grammars_share_their_steps(url):
    """All at once, each gets what it gets alone."""
    asked = [
        ("The war ended on ", {"grammar": {"type": "regex", "value": DATE}}),
        ("The capital of France is", {}),
        (ABOUT, {"grammar": {"type": "json_object", "value": json.dumps(PERSON)}}),
        ("Born on ", {"grammar": {"type": "regex", "value": DATE}, "seed": 4, "temperature": 1.5}),
        ("One, two, three,", {"watermark": True}),
    ]
    alone = [generate(url, inputs, max_new_tokens=12, **wanted) for inputs, wanted in asked]
    assert all(re.fullmatch(DATE, alone[place]["generated_text"]) for place in (0, 3))
    with ThreadPoolExecutor(len(asked)) as pool:
        together = pool.map(lambda request: generate(url, request[0], max_new_tokens=12, **request[1]), asked)
        assert [answer["generated_text"][:8] for answer in together] == [a["generated_text"][:8] for a in alone]


def test_clients_send_grammars(server):
    ours = Client(server.url).generate(
        "It was ", max_new_tokens=20, grammar=Grammar(type=GrammarType.Regex, value=DATE)
    )
    assert re.fullmatch(DATE, ours.generated_text)
    hub = InferenceClient(server.url)
    wanted = {"type": "json", "value": PERSON}
    text = hub.text_generation(ABOUT, max_new_tokens=200, return_full_text=False, grammar=wanted)
    assert set(json.loads(text)) == set(PERSON["properties"])


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("regex", "(a|b", "unclosed group"),
        ("regex", r"(\w{1,100}\s?){1,100}x", "too many expressions"),
        ("json", {"properties": {f"p{i}": {"type": "string"} for i in range(600)}}, "Current row has"),
        ("json", {"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}, "NoExtensionBias"),
    ],
    ids=["syntax", "states", "wide", "circular"],
)
def test_a_bad_grammar_is_refused_before_it_reaches_a_batch(server, kind, value, problem):
    body = {"inputs": "a", "parameters": {"grammar": {"type": kind, "value": value}}}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=60)
    assert answer.status_code == 422 and problem in answer.json()["error"]
