"""Anything in any field of any body: always an answer, with a status that says whose fault it is."""

import asyncio
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from mocks.fake_adapters import FakeAdapters
from mocks.http_page import all_endpoints
from mocks.running_router import running_router
from text_generation_router.routes.endpoint import Endpoint
from text_generation_router.schemas import GenerateParameters

DEEP: list[Any] = []
for _ in range(150):
    DEEP = [DEEP]
STRANGE: list[Any] = [True, -(2**70), "💥" * 999, [{}], {"": DEEP}]
SHORT = {"max_new_tokens": 2, "max_tokens": 2, "max_output_tokens": 2}
INSIDE = {
    "messages": ("role", "content", "tool_calls", "name"),
    "input": ("role", "content", "type", "call_id", "output"),
    "tools": ("type", "function", "name", "input_schema", "parameters"),
    "system": ("type", "text"),
    "instances": ("inputs", "messages", "parameters"),
    "outputs": ("name",),
}
"""Keys of what is in lists that are passed on as they are."""


def bodies(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """The example, with everything strange in each field, and in those inside; every other one asks for a stream."""
    told, stream = endpoint.told, cycle([{}, {"stream": True}])
    example = {key: min(value, SHORT[key]) if key in SHORT else value for key, value in told.example.items()}
    if "parameters" in example:
        example["parameters"] = SHORT
    for field in [field.alias or name for name, field in told.body.model_fields.items() if name != "root"]:
        yield from (example | next(stream) | {field: strange} for strange in STRANGE)
        for inner in INSIDE.get(field, ()):
            usual = {"role": "user", "content": "Hi", "type": "function", "function": {"name": "f"}, "name": "f"}
            yield from (example | next(stream) | {field: [usual | {inner: strange}]} for strange in STRANGE)
    if endpoint.path == "/generate":  # where others have them too, they are read by the same schema
        for name in GenerateParameters.model_fields:
            yield from (example | {"parameters": SHORT | {name: strange}} for strange in STRANGE)


async def test_any_field_may_hold_anything(directory):
    options = {"kserve": True, "max_total_tokens": 64, "max_input_tokens": 60, "served_model_name": "m"}
    async with running_router(directory, options=options, loads=FakeAdapters()) as router, asyncio.timeout(200):
        for endpoint in all_endpoints():
            for body in bodies(endpoint) if endpoint.told.body else ():
                answer = await router.client.request(endpoint.method, endpoint.example_path, json=body)
                fault = (endpoint.path, body, answer.text)
                assert answer.status_code in (200, 400, 404, 422), fault
                assert "Traceback" not in answer.text and str(directory.parent) not in answer.text, fault
                if answer.status_code != 200:
                    assert "error" in answer.json() and len(answer.text) < 2000, fault
                assert '"internal"' not in answer.text and '"server_error"' not in answer.text, fault
        await router.until_idle()
