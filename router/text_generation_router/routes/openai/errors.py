"""Errors as clients of OpenAI's API read them.

Source: OpenAI's API reference, "Error codes". Knows no route.
"""

import json
import re

from text_generation_router.errors import ApiError
from text_generation_router.responses import ErrorForm

DONE = "[DONE]"
"""What ends every stream, in place of a JSON text."""

_NAMES = {
    "inputs": "prompt",
    "input_ids": "prompt",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "count_penalty": "frequency_penalty",
    "top_n_tokens": "top_logprobs",
}
"""What this API calls fields that rules name as the native one does."""

_QUOTED = re.compile(r"`(\w+)`")


def _body(error: ApiError) -> str:
    """`type` is the kind that clients know, `code` the native API's name of the error, `param` the field to blame."""
    message = _QUOTED.sub(lambda found: f"`{_NAMES.get(found[1], found[1])}`", str(error))
    named = _QUOTED.search(message) if error.error_type == "validation" else None
    told = {
        "message": message,
        "type": _kind(error.status),
        "param": error.field or (named[1] if named else None),
        "code": error.error_type,
    }
    return json.dumps({"error": told}, ensure_ascii=False, separators=(",", ":"))


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 424 else "server_error"  # 424: the shard has failed


OPENAI_ERRORS = ErrorForm(_body, (DONE,))
