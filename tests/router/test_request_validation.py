"""Every rule a request must keep, on the route that answers at once and on the one that streams."""

import json

import pytest

from mocks.running_router import running_router
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_router.adapters import Adapters
from text_generation_router.errors import InvalidInput, Overloaded
from text_generation_router.permits import Permits
from text_generation_router.schemas import GenerateParameters, GenerateRequest, JsonGrammar
from text_generation_router.tokenizer import PromptTokenizer, load_backend
from text_generation_router.types import TokenLimits
from text_generation_router.validation import RequestLimits, Validator
from text_generation_server.grammar.compiler import GrammarCompiler

LONG = "x" * 100
DEEP = '{"properties": {"a": ' + "[" * 1500

RULES = [
    ({"best_of": 2}, "`best_of` is > 1"),
    ({"temperature": 0.0}, "`temperature`"),
    ({"temperature": -1.0}, "`temperature`"),
    ({"repetition_penalty": 0}, "`repetition_penalty`"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty`"),
    ({"frequency_penalty": -2.1}, "`frequency_penalty`"),
    ({"top_p": 0.0}, "`top_p`"),
    ({"top_p": 1.1}, "`top_p`"),
    ({"typical_p": 0.0}, "`typical_p`"),
    ({"typical_p": 1.0}, "`typical_p`"),
    ({"temperature": 1e-300}, "`temperature` must be strictly positive"),
    ({"repetition_penalty": 1e-46}, "`repetition_penalty` must be strictly positive"),
    ({"top_p": 1e-300}, "`top_p` must be > 0.0"),
    ({"typical_p": 1e-300}, "`typical_p` must be > 0.0"),
    ({"typical_p": 0.999999999}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"top_k": 0}, "`top_k`"),
    ({"top_k": -1}, "`top_k`"),
    ({"max_new_tokens": 0}, "`max_new_tokens`"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "supports up to 4 stop sequences. Given: 5"),
    ({"seed": 1, "best_of": 2, "do_sample": True}, "`seed` must not be set"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"truncate": 0}, "`truncate` must be strictly positive and less than 50. Given: 0"),
    ({"truncate": 51}, "`truncate` must be strictly positive and less than 50. Given: 51"),
    ({"max_new_tokens": 96}, "must be <= 101. Given: 6 `inputs` tokens and 96 `max_new_tokens`"),
    ({"grammar": {"type": "regex", "value": "(a|b"}}, "grammar is not valid: the grammar cannot be used: "),
    (
        {"grammar": {"type": "json", "value": {"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}}},
        "grammar is not valid: the grammar cannot be used: NoExtensionBias",
    ),
    ({"min_p": 1.01}, "`min_p` must be >= 0.0 and <= 1.0"),
    ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
    ({"count_penalty": 2.1}, "`count_penalty` must be >= -2.0 and <= 2.0"),
    ({"logit_bias": {"3": -100.5}}, "`logit_bias` must be >= -100 and <= 100. Given: -100.5 for token 3"),
    ({"min_new_tokens": 6, "max_new_tokens": 5}, "`min_new_tokens` must be <= `max_new_tokens`, here 5. Given: 6"),
    ({"timeout": -1}, "`timeout` must be strictly positive"),
    ({"grammar": {"type": "choice", "value": []}}, "a choice of answers cannot be empty"),
    ({"grammar": {"type": "json", "value": 5}}, "grammar is not supported"),
    ({"grammar": {"type": "json", "value": "{"}}, "grammar is not valid: "),
    ({"grammar": {"type": "json", "value": DEEP}}, "nested too deeply"),
    ({"grammar": {"type": "json_schema", "value": {"schema": DEEP}}}, "nested too deeply"),
    ({"grammar": {"type": "json", "value": "[]"}}, "a JSON list, expected an object"),
    ({"grammar": {"type": LONG * 9, "value": 5}}, "match any of the expected tags"),
    ({"grammar": {"type": "json", "value": {"type": "string"}}}, "must have a 'properties' field"),
    ({"grammar": {"type": "json_object", "value": '{"properties": {"a": {"type": "b"}}}'}}, "Invalid type: b"),
    ({"grammar": {"type": "json_schema", "value": {"schema": {}}}}, "must have a 'properties' field"),
    (
        {"adapter_id": "some/adapter"},
        "`adapter_id` must be left out: no adapters are served. Given: some/ad",
    ),
    ({"lora_id": "some/adapter"}, "`lora_id`"),
    ({"lora_id": LONG * 9}, "`lora_id`"),
]
STREAM_RULES = [
    ({"best_of": 2, "do_sample": True}, "`best_of` != 1 is not supported when streaming"),
    ({"best_of": 0}, "`best_of` != 1 is not supported when streaming"),
    ({"decoder_input_details": True}, "`decoder_input_details` is not supported when streaming"),
]
BODIES = [
    (b"{", "application/json", 400, "Failed to parse the request body as JSON: "),
    (b"", "application/json", 400, "Failed to parse the request body as JSON: "),
    (b'{"inputs": "\\ud800"}', "application/json", 400, "Failed to parse the request body as JSON: "),
    (b"\xff\xfe", "application/json", 400, "Failed to parse the request body as JSON: "),
    (b"{}", "application/json", 422, "Failed to deserialize the JSON body into the target type: inputs: "),
    (b'{"inputs": 5}', "application/problem+json", 422, "Failed to deserialize"),
    (b'{"inputs": null}', "application/json", 422, "Failed to deserialize"),
    (b"[]", "application/json; charset=utf-8", 422, "Failed to deserialize"),
    (b'{"inputs": "a", "parameters": {"max_new_tokens": -1}}', "application/json", 422, "Failed to deserialize"),
    (b'{"inputs": "a", "parameters": {"max_new_tokens": 1.5}}', "application/json", 422, "parameters.max_new_tokens"),
    (b'{"inputs": "a", "parameters": {"do_sample": "yes"}}', "application/json", 422, "parameters.do_sample"),
    (b'{"inputs": "a", "parameters": {"temperature": NaN}}', "application/json", 422, "parameters.temperature"),
    *(
        (b'{"inputs": "a", "parameters": {"%b": %b}}' % (name, value), "application/json", 422, text)
        for name in (b"temperature", b"repetition_penalty", b"frequency_penalty", b"top_p", b"typical_p")
        for value, text in (
            (b"1e300", f"parameters.{name.decode()}: 1e+300 is beyond what 32 bits hold"),
            (b"-3.41e38", f"parameters.{name.decode()}: -3.41e+38 is beyond what 32 bits hold"),
            (b"1e999", f"parameters.{name.decode()}: "),
            (b"1" * 400, f"parameters.{name.decode()}: "),
        )
    ),
    *(
        (b'{"inputs": "a", "parameters": {"%b": %d}}' % (name, 2**bits), "application/json", 422, f"{name.decode()}: ")
        for name, bits in ((b"seed", 64), (b"max_new_tokens", 32), (b"truncate", 32), (b"top_n_tokens", 32))
    ),
    (b'{"inputs": "a", "parameters": {"seed": ' + b"9" * 1900 + b"}}", "application/json", 422, "parameters.seed: "),
    (b'{"inputs": "a"}', "text/plain", 415, "Expected request with `Content-Type: application/json`"),
    (b'{"inputs": "a"}', "", 415, "Expected request with `Content-Type: application/json`"),
    (b'{"inputs": "' + b"a" * 3000 + b'"}', "application/json", 413, "Failed to buffer the request body"),
]


@pytest.fixture
async def router(directory):
    limits = {"max_input_tokens": 50, "max_total_tokens": 101, "payload_limit": 2000}
    async with running_router(directory, options=limits) as running:
        yield running


async def refusal(router, path: str, body: dict) -> str:
    """The text of the 422 that a request must get; the event stream must not have begun."""
    answer = await router.client.post(path, json=body)
    assert answer.status_code == 422, (body, answer.text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error_type"] == "validation" and list(answer.json()) == ["error", "error_type"]
    return answer.json()["error"]


async def test_every_rule_is_refused_with_its_text(router):
    for parameters, text in RULES:
        for path in ("/generate", "/generate_stream"):
            if "best_of" in parameters and path == "/generate_stream":
                continue
            error = await refusal(router, path, {"inputs": "Hello", "parameters": parameters})
            assert text in error and error.count("x") <= 220
    assert "Prefill" not in router.shard.steps()


async def test_rules_of_streams(router):
    for parameters, text in STREAM_RULES:
        for path, flag in (("/generate_stream", {}), ("/", {"stream": True})):
            assert text in await refusal(router, path, {"inputs": "Hello", "parameters": parameters, **flag})


async def test_grammars_and_watermarks_reach_the_shards(router):
    schema = {"properties": {"b": {"type": "integer"}, "a": {"type": "null"}}}
    given = [
        ({"type": "regex", "value": "[0-9]+"}, pb.GRAMMAR_TYPE_REGEX, "[0-9]+"),
        ({"type": "regex", "value": ""}, pb.GRAMMAR_TYPE_REGEX, "(?:)"),
        ({"type": "json", "value": schema}, pb.GRAMMAR_TYPE_JSON, json.dumps(schema)),
        ({"type": "json_object", "value": json.dumps(schema)}, pb.GRAMMAR_TYPE_JSON, json.dumps(schema)),
        (
            {"type": "json_schema", "value": {"name": "n", "strict": True, "schema": schema}},
            pb.GRAMMAR_TYPE_JSON,
            json.dumps(schema),
        ),
        ({"type": "json", "value": {"allOf": [schema]}}, pb.GRAMMAR_TYPE_JSON, json.dumps({"allOf": [schema]})),
        (None, pb.GRAMMAR_TYPE_NONE, ""),
    ]
    for grammar, kind, text in given:
        answer = await router.generate("Hello", max_new_tokens=1, grammar=grammar, watermark=grammar is not None)
        assert answer.status_code == 200
        sent = [call for name, call in router.shard.calls if name == "Prefill"][-1].batch.requests[0].parameters
        assert (sent.grammar, sent.grammar_type, sent.watermark) == (text, kind, grammar is not None)


async def test_a_grammar_of_no_known_form_is_no_request(router):
    for grammar in (
        {"type": "xml", "value": "a"},
        {"type": "regex"},
        {"value": "a"},
        "a",
        {"type": "regex", "value": 5},
    ):
        answer = await router.generate("Hello", grammar=grammar)
        assert answer.status_code == 422 and "grammar" in answer.json()["error"]


async def test_numbers_that_python_does_not_write_are_refused(validator):
    grammar = JsonGrammar.model_construct(type="json", value={"properties": {}, "minimum": 10**5000})
    parameters = GenerateParameters.model_construct(max_new_tokens=5, grammar=grammar)
    with pytest.raises(InvalidInput, match="numbers are too long"):
        await validator.validate(GenerateRequest.model_construct(inputs="Hello", parameters=parameters))


async def test_grammars_can_be_switched_off(directory):
    async with running_router(directory, options={"disable_grammar_support": True}) as router:
        body = {"inputs": "Hello", "parameters": {"grammar": {"type": "regex", "value": "a"}}}
        assert (await refusal(router, "/generate", body)).endswith("grammar is not supported")


async def test_tokens_that_the_model_does_not_know_are_refused(directory):
    """The end token has id 257."""
    async with running_router(directory, vocab_size=257) as router:
        error = await refusal(router, "/generate", {"inputs": "a </s>"})
        assert error.endswith("a token that the model does not know: id 257, expected less than 257; leave it out")
        assert (await router.generate("<s>", max_new_tokens=1)).status_code == 200
        assert router.shard.steps().count("Prefill") == 1


async def test_best_of_is_limited(router):
    body = {"inputs": "Hello", "parameters": {"best_of": 3, "do_sample": True}}
    assert "`best_of` must be > 0 and <= 2. Given: 3" in await refusal(router, "/generate", body)


async def test_inputs_must_be_there_and_fit(router):
    for path in ("/generate", "/generate_stream", "/"):
        assert "`inputs` cannot be empty" in await refusal(router, path, {"inputs": ""})
        too_long = {"inputs": LONG, "parameters": {"max_new_tokens": 1}}
        assert "Given: 101 `inputs` tokens and 1" in await refusal(router, path, too_long)
        too_long = {"inputs": "x" * 60, "parameters": {"max_new_tokens": 1}}
        assert "`inputs` must have less than 50 tokens. Given: 61" in await refusal(router, path, too_long)
        cut = {"inputs": LONG, "parameters": {"max_new_tokens": 1, "truncate": 50}}
        assert (await router.client.post(path, json=cut)).status_code == 200


async def test_an_adapter_is_refused_wherever_it_is_named(router):
    assert "`lora_id`" in await refusal(router, "/generate", {"inputs": "a", "lora_id": "b"})
    assert "`adapter_id`" in await refusal(router, "/generate", {"inputs": "a", "adapter_id": "b"})


async def test_an_adapter_that_is_served_reaches_the_shard(directory):
    async with running_router(directory, adapters=("law", "verse")) as router:
        asked = [{"parameters": {"adapter_id": "law"}}, {"lora_id": "verse"}, {"parameters": {"lora_id": "empty"}}, {}]
        prompt = "The same prompt"
        for body in asked * 2:
            body = {"inputs": prompt} | body
            body["parameters"] = body.get("parameters", {}) | {"max_new_tokens": 1}
            assert (await router.client.post("/generate", json=body)).status_code == 200
        sent = [call.batch.requests[0] for name, call in router.shard.calls if name == "Prefill"]
        assert [request.adapter_id for request in sent] == ["law", "verse", "", ""] * 2
        # A prefix is reused for the same adapter, or none, only.
        assert [request.cache_len > 0 for request in sent] == [False, False, False, *[True] * 5]
        text = await refusal(router, "/generate", {"inputs": "a", "parameters": {"adapter_id": "lore"}})
        assert "`adapter_id` must be one of law, verse. Given: lore" in text
        text = await refusal(router, "/generate", {"inputs": "a", "adapter_id": "law", "lora_id": "verse"})
        assert "a request has one adapter. Given: law, verse" in text


async def test_bodies_that_cannot_be_read(router):
    for path in ("/generate", "/generate_stream", "/"):
        for body, content_type, status, text in BODIES:
            answer = await router.client.post(path, content=body, headers={"content-type": content_type})
            assert answer.status_code == status, (body, answer.text)
            assert text in answer.json()["error"] and answer.json()["error_type"] == "validation"


async def test_refusals_are_counted_and_serving_goes_on(router):
    await refusal(router, "/generate", {"inputs": ""})
    await refusal(router, "/generate_stream", {"inputs": ""})
    assert await router.metric('tgi_request_failure{err="validation"}') == 2
    assert (await router.generate("Hello", max_new_tokens=1)).status_code == 200
    assert await router.metric("tgi_request_count") == 3


@pytest.fixture
def validator(directory):
    from mocks.fake_shard import save_tokenizer

    save_tokenizer(directory)
    backend = load_backend(directory, trust_remote_code=False)
    tokenizer, grammars = PromptTokenizer(backend, workers=1), GrammarCompiler(backend, backend.vocab_size)
    yield Validator(
        tokenizer, grammars, RequestLimits(1, 4, 5), TokenLimits(3000, 4000, 4096, 8192), Adapters(None, ())
    )
    tokenizer.close()


def request(**body) -> GenerateRequest:
    return GenerateRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize(("wanted", "given"), [(5, 5), (3000, 3000), (3994, 3994), (99999, 3994), (None, 3994)])
@pytest.mark.parametrize("grammar", [None, {"type": "regex", "value": "a*"}])
async def test_the_answer_ends_with_the_room_there_is(validator, wanted, given, grammar):
    valid = await validator.validate(request(inputs="Hello", parameters={"max_new_tokens": wanted, "grammar": grammar}))
    assert valid.max_new_tokens == given


async def test_of_too_many_new_tokens_some_must_fit(validator):
    parameters = {"max_new_tokens": 1026}
    valid = await validator.validate(request(inputs="x" * 2975, parameters=parameters))
    assert valid.max_new_tokens == 1024
    with pytest.raises(InvalidInput, match="must be <= 4000"):
        await validator.validate(request(inputs="x" * 2976, parameters=parameters))


async def test_a_truncated_prompt_keeps_its_beginning_token_and_its_end(validator):
    valid = await validator.validate(request(inputs="abcdef", parameters={"truncate": 3}))
    assert valid.input_ids == (256, ord("e") - ord("!"), ord("f") - ord("!")) and valid.truncate == 3


async def test_one_sample_only_where_only_one_is_allowed(validator):
    parameters = request(inputs="a", parameters={"best_of": 2, "do_sample": True}).parameters
    with pytest.raises(InvalidInput, match="not allowed for this endpoint"):
        validator.check_form(parameters, stream=False)


async def test_seeds_differ_unless_given(validator):
    seeds = {(await validator.validate(request(inputs="a"))).sampling.seed for _ in range(5)}
    assert len(seeds) == 5


async def test_permits_are_tried_and_come_back():
    permits = Permits(2)
    async with permits.held(1):
        with pytest.raises(Overloaded):
            async with permits.held(2):
                pass
        async with permits.held(1):
            with pytest.raises(Overloaded):
                permits.take(1)
    async with permits.held(2):
        pass
