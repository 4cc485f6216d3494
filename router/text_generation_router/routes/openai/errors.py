"""Errors as clients of OpenAI's API read them.

Source: OpenAI's API reference, "Error codes". Knows no route.
"""

import json
import re

from text_generation_router.errors import ApiError
from text_generation_router.responses import ErrorForm

DONE = "[DONE]"
"""What ends every stream, in place of a JSON text."""

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}

_NAMES = {"inputs": "prompt", "max_new_tokens": "max_tokens", "top_n_tokens": "top_logprobs"}
"""What this API calls fields that rules name as the native one does."""

_QUOTED = re.compile(r"`(\w+)`")


def _body(error: ApiError) -> str:
    """`type` is the kind that clients know, `code` the native API's name of the error, `param` the field to blame."""
    message = _QUOTED.sub(lambda found: f"`{_NAMES.get(found[1], found[1])}`", str(error))
    named = _QUOTED.search(message) if error.error_type == "validation" else None
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status in range(400, 424) else "server_error")
    told = {
        "message": message,
        "type": kind,
        "param": error.field or (named[1] if named else None),
        "code": error.error_type,
    }
    return json.dumps({"error": told}, ensure_ascii=False, separators=(",", ":"))


OPENAI_ERRORS = ErrorForm(_body, (DONE,))
