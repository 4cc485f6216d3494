"""Requests as a generation of routers writes them, the warm-up batch above all (docs/protocol.md#warming-up)."""

import base64

from conformance.caller import Caller, Message
from conformance.router_generations import RouterGeneration

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(543)
"""Routers send a PNG and call it a JPEG."""

PARAMETERS = {
    "temperature": 0.9, "top_k": 10, "top_p": 0.9, "typical_p": 0.9, "repetition_penalty": 1.2,
    "frequency_penalty": 0.1, "watermark": True,
}  # fmt: skip


def request_fields(caller: Caller, generation: RouterGeneration, text: str) -> dict:
    """Fields of a Request that depend on the generation, and not on the request's place in the cache."""
    fields = dict(generation.extra)
    if caller.version == "v3":
        fields["input_chunks"] = caller.pb.Input(chunks=[caller.pb.InputChunk(text=text)])
    if "add_special_tokens" in generation.fields:
        fields["add_special_tokens"] = True
    return fields


def warm_up_requests(caller: Caller, generation: RouterGeneration, prefill_budget: int) -> list[Message]:
    """All ids are 0, the first has an image, and lengths may have wrapped around."""
    requests: list[Message] = []
    max_input, max_total = generation.limits
    tokens = 0
    while tokens < prefill_budget:
        truncate = min(prefill_budget - tokens, max_input or prefill_budget)
        new = 1 if max_total is None else (max_total - truncate) % 2**32
        count = truncate if generation.open_limits or max_input is None else max_input
        requests.append(_warm_up_request(caller, generation, "_test " * count, truncate, new, image=not requests))
        tokens += count
    return requests


def _warm_up_request(
    caller: Caller, generation: RouterGeneration, text: str, truncate: int, new: int, image: bool
) -> Message:
    fields = request_fields(caller, generation, text)
    if image:
        fields["inputs"] = f"{text}![](data:image/jpeg;base64,{base64.b64encode(IMAGE).decode()})"
        if caller.version == "v3":
            chunk = caller.pb.InputChunk(image=caller.pb.Image(data=IMAGE, mimetype="image/jpeg;base64"))
            fields["input_chunks"].chunks.append(chunk)
    return caller.request(
        0, text, new, parameters=PARAMETERS, truncate=truncate, prefill_logprobs=True, top_n_tokens=20, **fields
    )
