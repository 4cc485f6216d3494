"""The headers of generations, the same on every API. Knows no route."""

from text_generation_router.entry import Times

STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


def compute_headers(compute_type: str, characters: int) -> dict[str, str]:
    """Where it is computed, and of how much text, in characters."""
    return {"x-compute-type": compute_type, "x-compute-characters": str(characters)}


def timing_headers(times: Times, prompt_tokens: int, generated_tokens: int) -> dict[str, str]:
    """Of a whole answer. Whole milliseconds, except for the time of computing, which is in seconds."""
    milliseconds = {
        "x-total-time": times.total,
        "x-validation-time": times.validation,
        "x-queue-time": times.queue,
        "x-inference-time": times.inference,
        "x-time-per-token": times.per_token,
    }
    return {
        "x-compute-time": str(times.total),
        **{name: str(int(seconds * 1000)) for name, seconds in milliseconds.items()},
        "x-prompt-tokens": str(prompt_tokens),
        "x-generated-tokens": str(generated_tokens),
    }
