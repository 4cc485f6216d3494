"""Errors as clients of Anthropic's API read them.

Source: Anthropic's API reference, "Errors". Knows no route.
"""

import json

from text_generation_router.errors import ApiError
from text_generation_router.responses import ErrorForm, renamed

_NAMES = {"inputs": "messages", "max_new_tokens": "max_tokens", "stop": "stop_sequences"}
"""What this API calls fields that rules name as the native one does."""

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _body(error: ApiError) -> str:
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 424 else "api_error")
    told = {"type": "error", "error": {"type": kind, "message": renamed(str(error), _NAMES)}}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


ANTHROPIC_ERRORS = ErrorForm(_body, lambda error: (_body(error),))
