"""The OpenAPI document, the page made of it and docs/http-api.md tell of every route, and what they tell is so."""

import json

from mocks.fake_adapters import FakeAdapters
from mocks.http_page import PAGE, all_endpoints, page
from mocks.running_router import events, running_router
from text_generation_router.routes.answer_schemas import Generated, StreamEvent
from text_generation_router.routes.endpoint import JSON


def test_the_page_is_made_from_the_routes():
    assert PAGE.read_text(encoding="utf-8") == page(PAGE.read_text(encoding="utf-8")), "run `make docs`"


async def test_every_route_is_in_the_document_and_takes_its_example(directory):
    options = {"kserve": True, "served_model_name": "smollm2"}
    loads = FakeAdapters(**{"owner/law": "1", "/adapters/law": "2"})
    async with running_router(directory, options=options, loads=loads) as router:
        told = (await router.client.get("/api-doc/openapi.json")).json()
        assert told["info"]["title"] == "Text Generation Inference"
        assert told["info"]["license"]["name"] == "Apache 2.0"
        documented = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
        assert documented == {(one.method, one.path_format) for one in all_endpoints()}
        for endpoint in all_endpoints():
            operation = told["paths"][endpoint.path_format][endpoint.method.lower()]
            assert operation["operationId"] == endpoint.told.id and operation["summary"].endswith(".")
            answer = await router.client.request(endpoint.method, endpoint.example_path, json=endpoint.told.example)
            assert answer.status_code == 200, endpoint.path
            kind = answer.headers.get("content-type", "").partition(";")[0]
            assert kind in (endpoint.told.answers or ("",))
            if kind == JSON and endpoint.told.schema is not None:
                endpoint.told.schema.model_validate_json(answer.content)
        ids = [one.told.id for one in all_endpoints()]
        assert len(set(ids)) == len(ids)
        shown = (await router.client.get("/docs")).text
        assert all(endpoint.path_format in shown for endpoint in all_endpoints())


async def test_answers_are_as_they_are_described(directory):
    parameters = {"max_new_tokens": 2, "details": True, "top_n_tokens": 1}
    wishes = {"best_of": 2, "do_sample": True, "decoder_input_details": True}
    async with running_router(directory) as router:
        answer = (await router.generate("Hi", **parameters, **wishes)).json()
        assert Generated.model_validate(answer).model_dump(mode="json", exclude_unset=True) == answer
        body = {"inputs": "Hi", "parameters": parameters}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            async for event in events(response):
                assert StreamEvent.model_validate(event).model_dump(mode="json", exclude_unset=True) == event


async def test_references_in_the_document_lead_somewhere(directory):
    async with running_router(directory) as router:
        text = (await router.client.get("/api-doc/openapi.json")).text
        assert '"/v2' not in text  # only with --kserve
        schemas = json.loads(text)["components"]["schemas"]
        references = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert references and references <= set(schemas)
