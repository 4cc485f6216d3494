"""KServe's open inference protocol, version 2: texts as bytes in tensors. Knows not how answers are made.

Source: the protocol's "HTTP/REST" chapter, and which of it text-generation-inference's KServe build has.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.entry import Timeline
from text_generation_router.errors import InvalidInput
from text_generation_router.inference import Completion
from text_generation_router.outcome import counted
from text_generation_router.responses import read_json
from text_generation_router.routes.endpoint import JSON, Endpoint
from text_generation_router.routes.services import Services
from text_generation_router.schemas import AdapterFields, Body, Count, GenerateParameters, GenerateRequest
from text_generation_router.streaming import until_disconnect

_MODEL = "/v2/models/{model_name}/versions/{model_version}"
_VALUES = {"model_name": "smollm2", "model_version": "1"}
_EXAMPLE = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "UINT8", "data": list(b"Hello")}],
    "outputs": [{"name": "b"}],
    "parameters": {"max_new_tokens": 20},
}


class InputTensor(Body):
    """A prompt: its bytes in UTF-8."""

    name: str
    shape: list[Count] | None = None
    datatype: str | None = None
    data: list[int]


class OutputTensor(Body):
    """What an answer is to be called."""

    name: str


class InferBody(AdapterFields):
    """Body of `infer`: prompts and the names of their answers, side by side."""

    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[OutputTensor]
    parameters: GenerateParameters | None = None


class KServeRoutes:
    """The handlers, over what they serve from."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        infer: dict[str, Any] = {"body": InferBody, "example": _EXAMPLE}
        return [
            Endpoint("GET", "/v2", self.server, id="kserve_server"),
            Endpoint("GET", "/v2/health/live", self.live, id="kserve_live"),
            Endpoint("GET", "/v2/health/ready", self.ready, id="kserve_ready", fails=(503,)),
            Endpoint("GET", _MODEL, self.model, id="kserve_model", values=_VALUES),
            Endpoint("GET", f"{_MODEL}/ready", self.model_ready, id="kserve_model_ready", values=_VALUES, fails=(503,)),
            Endpoint("POST", f"{_MODEL}/infer", self.infer, id="kserve_infer", values=_VALUES, **infer),
        ]

    async def server(self, _: Request) -> Response:
        """What this server is, for KServe."""
        name, version = "text-generation-inference", self._services.info["version"]
        return _json({"name": name, "version": version, "extensions": ["health", "models", "metrics"]})

    async def live(self, _: Request) -> Response:
        """Whether the router runs, for KServe."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether the shards can generate, for KServe."""
        await self._services.health.check()
        return _json({"live": True})

    async def model(self, request: Request) -> Response:
        """What can be asked of a model, for KServe."""
        names = request.path_params
        told = {"name": names["model_name"], "version": names["model_version"], "extensions": ["infer", "ready"]}
        return _json(told)

    async def model_ready(self, request: Request) -> Response:
        """Whether a model can generate, for KServe."""
        return await self.ready(request)

    async def infer(self, request: Request) -> Response:
        """Go on with several prompts, for KServe."""
        services = self._services
        with counted(services.metrics.requests):
            timeline = Timeline(time.monotonic())
            body = await read_json(request, InferBody, services.payload_limit)
            completions = await until_disconnect(request.receive, self._complete(body, timeline))
            texts = [completion.generated_text.text.encode() for completion in completions]
            outputs = [
                {"name": output.name, "shape": [1, len(text)], "datatype": "BYTES", "data": list(text)}
                for output, text in zip(body.outputs, texts, strict=True)
            ]
            return _json({"id": body.id, "outputs": outputs})

    async def _complete(self, body: InferBody, timeline: Timeline) -> Sequence[Completion]:
        services = self._services
        if len(body.inputs) != len(body.outputs):
            raise InvalidInput(
                f"`outputs` must be as many as `inputs`. Given: {len(body.outputs)} and {len(body.inputs)}"
            )
        async with services.permits.held(len(body.inputs)):
            requests = [await services.validator.validate(_request(tensor, body)) for tensor in body.inputs]
            return await services.inference.complete_all(requests, timeline)


def _request(tensor: InputTensor, body: InferBody) -> GenerateRequest:
    text, adapter, lora = _text(tensor), body.adapter_id, body.lora_id
    return GenerateRequest(inputs=text, parameters=body.parameters, adapter_id=adapter, lora_id=lora)


def _text(tensor: InputTensor) -> str:
    try:
        return bytes(tensor.data).decode()
    except ValueError as error:  # no bytes, or not UTF-8
        raise InvalidInput("`inputs` has `data` that is no UTF-8, as a list of bytes") from error


def _json(answer: Any) -> Response:
    return Response(json.dumps(answer), media_type=JSON)
