"""Sampling fields and forms of answers beyond text-generation-inference's: what the shard gets, and what is refused."""

import json
from typing import Any

import pytest

from mocks.running_router import RunningRouter, running_router
from text_generation_protocol.v3 import generate_pb2 as pb

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
OPENAI = {
    "min_p": 0.25,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"5": -100, "66": 2.5},
    "ignore_eos": True,
    "min_tokens": 1,
    "stop_token_ids": [7, 8],
    "stop": "ab",
}
NATIVE = {
    **{
        name: OPENAI[name]
        for name in ("min_p", "presence_penalty", "logit_bias", "ignore_eos", "stop_token_ids", "stop")
    },
    "count_penalty": -0.5,
    "min_new_tokens": 1,
}
SCHEMA = {"type": "array", "items": {"type": "integer"}}
GBNF = 'root ::= "a" | "b" root'
LARK = 'start: "a" start?'


def body(path: str, **fields: Any) -> dict[str, Any]:
    if path == "/generate":
        return {"inputs": "Hello", "parameters": {"max_new_tokens": 2, **fields}}
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hello"}
    return {**asked, "max_tokens": 2, **fields}


def sent(router: RunningRouter) -> list[Any]:
    return [request for name, call in router.shard.calls if name == "Prefill" for request in call.batch.requests]


async def test_fields_reach_the_shard(directory):
    async with running_router(directory) as router:
        for path, fields in ((CHAT, OPENAI), (COMPLETIONS, OPENAI), ("/generate", NATIVE)):
            answer = await router.client.post(path, json=body(path, **fields))
            assert answer.status_code == 200, answer.text
    for request in sent(router):
        parameters, stopping = request.parameters, request.stopping_parameters
        assert (parameters.min_p, parameters.presence_penalty, parameters.count_penalty) == (0.25, 0.5, -0.5)
        assert {one.id: one.bias for one in parameters.logit_bias} == {5: -100.0, 66: 2.5}
        assert parameters.frequency_penalty == 0.0  # text-generation-inference's is another one
        assert (stopping.min_new_tokens, list(stopping.stop_token_ids), stopping.ignore_eos_token) == (1, [7, 8], True)
        assert list(stopping.stop_sequences) == ["ab"]


async def test_a_greedy_request_draws_nothing(directory):
    async with running_router(directory) as router:
        for fields in ({"temperature": 0, "min_p": 0.3, "top_k": 4}, {"temperature": 0.5, "top_k": -1}):
            assert (await router.client.post(CHAT, json=body(CHAT, **fields))).status_code == 200
        greedy, drawn = (request.parameters for request in sent(router))
        assert (greedy.do_sample, greedy.min_p, greedy.top_k) == (False, 0.0, 0)
        assert (drawn.do_sample, drawn.temperature, drawn.top_k) == (True, 0.5, 0)


async def test_shards_that_do_not_know_a_field_never_get_it(directory):
    """What says nothing, and what all shards know, is taken all the same."""
    unknown = {name: value for name, value in OPENAI.items() if name not in ("ignore_eos", "stop")}
    async with running_router(directory, extensions=()) as router:
        for path in (CHAT, COMPLETIONS):
            for name, value in {**unknown, "guided_grammar": GBNF}.items():
                answer = await router.client.post(path, json=body(path, **{name: value}))
                error = answer.json()["error"]
                assert answer.status_code == 422 and "is not known to the shards" in error["message"]
                assert error["param"] == ("grammar" if name == "guided_grammar" else name)
        answer = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=[1, 2]))
        assert answer.status_code == 422 and answer.json()["error"]["param"] == "prompt"
        answer = await router.generate("Hello", count_penalty=1.0)
        assert "`count_penalty` is not known to the shards" in answer.json()["error"]
        neutral = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "min_p": 0, "min_tokens": 0}
        fields = {**neutral, "stop_token_ids": [], "ignore_eos": True, "guided_choice": ["a", "b"]}
        assert (await router.client.post(CHAT, json=body(CHAT, **fields))).status_code == 200
        assert len(sent(router)) == 1


async def test_prompts_may_be_ids(directory):
    async with running_router(directory, vocab_size=258) as router:
        ids = router.shard.tokenizer.encode("Hello", add_special_tokens=False).ids
        text = router.shard.tokenizer.encode("bc").ids  # with the special token that begins it
        answer = (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=[ids, text], n=2))).json()
        assert answer["usage"]["prompt_tokens"] == len(ids) + len(text)
        texts = [choice["text"] for choice in answer["choices"]]
        assert texts[2:] == [router.text("bc", 2)] * 2 and texts[0] == texts[1]
        assert [list(request.prompt_ids) for request in sent(router)] == [ids, ids, text, text]
        assert sent(router)[0].inputs == "Hello"
        (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=text, echo=True))).json()
        whole = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=text, echo=True))
        assert whole.json()["choices"][0]["text"] == "<s>bc" + router.text("bc", 2)
        native = {"inputs": "", "input_ids": text, "parameters": {"max_new_tokens": 2}}
        assert (await router.client.post("/generate", json=native)).json() == {"generated_text": router.text("bc", 2)}
        assert (await router.client.post("/generate", json={**native, "inputs": "a"})).status_code == 422


async def test_an_echo_tells_the_prompt_and_how_likely_it_was(directory):
    async with running_router(directory) as router:
        text = router.text("ab", 2)
        fields = {"prompt": "ab", "echo": True, "logprobs": 1, "temperature": 0}
        choice = (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))).json()["choices"][0]
        told = choice["logprobs"]
        assert choice["text"] == "ab" + text
        assert told["tokens"] == ["<s>", "a", "b", *text]
        assert told["token_logprobs"][:3] == [None, -0.5, -0.5] and all(told["token_logprobs"][3:])
        tops = told["top_logprobs"]
        assert tops[:3] == [None, {"t": 0.0, "a": -0.5}, {"t": 0.0, "b": -0.5}] and list(tops[3]) == ["t", text[0]]
        assert told["text_offset"] == [0, 3, 4, 5, 6]
        request = {**body(COMPLETIONS, **fields), "stream": True}
        async with router.client.stream("POST", COMPLETIONS, json=request) as response:
            lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
        choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
        assert [choice["text"] for choice in choices] == ["ab", *text, ""]
        parts = [choice["logprobs"] for choice in choices[:-1]]
        assert {name: [one for part in parts for one in part[name]] for name in told} == told
        plain = {"prompt": "ab", "echo": True}
        assert (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **plain))).json()["choices"][0][
            "text"
        ] == ("ab" + text)
        assert not sent(router)[-1].prefill_logprobs


async def test_an_echo_of_other_shards_tells_less_or_why_not(directory, monkeypatch):
    fields = body(COMPLETIONS, prompt="ab", echo=True, logprobs=1)
    async with running_router(directory, extensions=()) as router:
        told = (await router.client.post(COMPLETIONS, json=fields)).json()["choices"][0]["logprobs"]
        assert told["top_logprobs"][:3] == [None] * 3 and told["token_logprobs"][:3] == [None, -0.5, -0.5]
        monkeypatch.setattr(router.shard, "_prompt_tokens", lambda row: None)
        answer = await router.client.post(COMPLETIONS, json=fields)
        assert answer.status_code == 422 and "--enable-prefill-logprobs" in answer.json()["error"]["message"]


async def test_of_alternatives_that_tie_as_many_are_told_as_were_asked_for(directory, monkeypatch):
    texts = ["t", "u", "v", "w"]
    tied = pb.Tokens(ids=range(4), logprobs=[-0.5] * 4, texts=texts, is_special=[False] * 4)
    monkeypatch.setattr("mocks.fake_shard._top", lambda count: tied)
    async with running_router(directory) as router:
        answer = await router.client.post(CHAT, json=body(CHAT, logprobs=True, top_logprobs=2))
        told = answer.json()["choices"][0]["logprobs"]["content"]
        assert [[one["token"] for one in token["top_logprobs"]] for token in told] == [["t", "u"]] * 2
        answer = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, logprobs=1))
        assert [next(iter(top)) for top in answer.json()["choices"][0]["logprobs"]["top_logprobs"]] == ["t", "t"]
        assert all(len(top) <= 2 for top in answer.json()["choices"][0]["logprobs"]["top_logprobs"])


async def test_the_best_of_several_are_told(directory):
    """The fake shard's answers to a prompt are all alike: that the likeliest are told shows with two prompts only."""
    async with running_router(directory, options={"max_best_of": 4}) as router:
        fields = {"prompt": ["a", "bc"], "best_of": 3, "n": 2, "temperature": 1, "seed": 5}
        answer = (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))).json()
        texts = [router.text(prompt, 2) for prompt in ("a", "bc")]
        assert [choice["text"] for choice in answer["choices"]] == [texts[0], texts[0], texts[1], texts[1]]
        assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
        assert sorted(request.parameters.seed for request in sent(router)) == [5, 5, 6, 6, 7, 7]
        streamed = {**body(COMPLETIONS, **fields), "stream": True}
        assert (await router.client.post(COMPLETIONS, json=streamed)).json()["error"]["param"] == "best_of"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("block_size", "again"), [(1, 1), (16, 1 + 100 % 16)])
async def test_several_answers_share_one_prefill(directory, stream, block_size, again):
    """Counted in tokens: the prompt once, and for each further answer its last token, or the block that it is in."""
    prompt = "x" * 100
    async with running_router(directory, options={"max_best_of": 4}, block_size=block_size) as router:
        fields = {"prompt": prompt, "n": 4, "stream": stream}
        answer = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))
        assert answer.status_code == 200 and answer.text.count('"finish_reason":"length"') == 4
        assert [101 - request.cache_len for request in sent(router)] == [101, again, again, again]
        await router.until_idle()
        router.shard.fail_after[prompt] = 0
        failed = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))
        assert "no room" in failed.text
        await router.until_idle()
    async with running_router(directory, prefix_caching=False) as router:
        fields = {"prompt": prompt, "n": 2}
        assert (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))).status_code == 200
        assert router.shard.steps().count("Prefill") == 1


async def test_forms_of_answers_in_vllms_words(directory):
    any_object = {"properties": {}, "additionalProperties": True}
    given: list[tuple[dict[str, Any], int, str]] = [
        ({"guided_json": SCHEMA}, pb.GRAMMAR_TYPE_JSON, json.dumps(SCHEMA)),
        ({"guided_json": json.dumps(SCHEMA)}, pb.GRAMMAR_TYPE_JSON, json.dumps(SCHEMA)),
        ({"guided_regex": "[0-9]+"}, pb.GRAMMAR_TYPE_REGEX, "[0-9]+"),
        ({"guided_choice": ["a.b", "c d", ""]}, pb.GRAMMAR_TYPE_REGEX, r"(?:a\.b)|(?:c d)|(?:)"),
        ({"guided_grammar": GBNF}, pb.GRAMMAR_TYPE_EBNF, GBNF),
        ({"structured_outputs": {"json": SCHEMA}}, pb.GRAMMAR_TYPE_JSON, json.dumps(SCHEMA)),
        ({"structured_outputs": {"json_object": True}}, pb.GRAMMAR_TYPE_JSON, json.dumps(any_object)),
        ({"structured_outputs": {"regex": "a+"}}, pb.GRAMMAR_TYPE_REGEX, "a+"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, pb.GRAMMAR_TYPE_REGEX, "(?:yes)|(?:no)"),
        ({"structured_outputs": {"grammar": LARK}}, pb.GRAMMAR_TYPE_EBNF, LARK),
        ({"structured_outputs": {}, "guided_json": None}, pb.GRAMMAR_TYPE_NONE, ""),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
            pb.GRAMMAR_TYPE_JSON,
            json.dumps(SCHEMA),
        ),
    ]
    async with running_router(directory) as router:
        for path in (CHAT, COMPLETIONS):
            for fields, kind, text in given:
                answer = await router.client.post(path, json=body(path, **fields))
                assert answer.status_code == 200, (fields, answer.text)
                parameters = sent(router)[-1].parameters
                assert (parameters.grammar_type, parameters.grammar) == (kind, text)
        for grammar, kind in (
            ({"type": "ebnf", "value": LARK}, pb.GRAMMAR_TYPE_EBNF),
            ({"type": "choice", "value": ["a"]}, pb.GRAMMAR_TYPE_REGEX),
        ):
            assert (await router.generate("a", max_new_tokens=1, grammar=grammar)).status_code == 200
            assert sent(router)[-1].parameters.grammar_type == kind


UNFOLLOWED: list[tuple[dict[str, Any], str]] = [
    ({"guided_json": {"type": "nothing"}}, "Invalid type: nothing"),
    ({"guided_json": "{"}, "is no JSON"),
    ({"guided_json": 5}, "expected a JSON schema"),
    ({"guided_regex": "("}, "unclosed group"),
    ({"guided_choice": []}, "cannot be empty"),
    ({"guided_choice": [5]}, "guided_choice"),
    ({"guided_grammar": "root ::= missing"}, "'missing' not found"),
    ({"guided_grammar": 'start: "a" missing'}, "missing"),
    ({"guided_grammar": 'a: "b"'}, "no start rule"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "structural_tag"),
    (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "`structured_outputs.regex` and `structured_outputs.ch",
    ),
    ({"guided_json": SCHEMA, "response_format": {"type": "json_object"}}, "`response_format` and `guided_json`"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}}, "not"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format"),
    ({"response_format": {"type": "structural_tag"}}, "response_format"),
]


async def test_forms_that_cannot_be_followed_are_refused_at_once(directory):
    async with running_router(directory) as router:
        for fields, problem in UNFOLLOWED:
            for path in (CHAT, COMPLETIONS):
                answer = await router.client.post(path, json=body(path, **fields))
                assert answer.status_code == 422 and problem in answer.json()["error"]["message"], answer.text
        assert not sent(router)
