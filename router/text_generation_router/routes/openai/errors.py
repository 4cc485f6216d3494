"""Errors as clients of OpenAI's API read them.

Source: OpenAI's API reference, "Error codes". Knows no route.
"""

import json
from collections.abc import Mapping

from text_generation_router.errors import ApiError
from text_generation_router.responses import QUOTED, ErrorForm, renamed

DONE = "[DONE]"
"""What ends every stream of chats and completions, in place of a JSON text."""

_NAMES = {
    "inputs": "prompt",
    "input_ids": "prompt",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "count_penalty": "frequency_penalty",
    "top_n_tokens": "top_logprobs",
}
_NAMES_OF_RESPONSES = {
    "inputs": "input",
    "messages": "input",
    "max_new_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "top_n_tokens": "top_logprobs",
    "response_format": "text",
}
"""What these APIs call fields that rules name as the native one does, or chats do."""


def _told(error: ApiError, names: Mapping[str, str]) -> dict[str, str | None]:
    """`type` is the kind that clients know, `code` the native API's name of the error, `param` the field to blame."""
    message = renamed(str(error), names)
    named = QUOTED.search(message) if error.error_type == "validation" else None
    first, dot, rest = (error.field or "").partition(".")
    return {
        "message": message,
        "type": _kind(error.status),
        "param": names.get(first, first) + dot + rest or (named[1] if named else None),
        "code": error.error_type,
    }


def _body(error: ApiError, names: Mapping[str, str] = _NAMES) -> str:
    return json.dumps({"error": _told(error, names)}, ensure_ascii=False, separators=(",", ":"))


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 424 else "server_error"  # 424: the shard has failed


def _response_body(error: ApiError) -> str:
    return _body(error, _NAMES_OF_RESPONSES)


OPENAI_ERRORS = ErrorForm(_body, lambda error: (_body(error), DONE))
RESPONSES_ERRORS = ErrorForm(_response_body, lambda error: (_response_body(error),))
