"""What routers of each generation do differently on the wire (docs/protocol.md#generations-of-routers), as data."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RouterGeneration:
    """One generation of routers.

    packages: tried in this order at discovery. fields: of a version 3 Request, those that it knows.
    block_size: slots of a block of its allocator, None for what Info says, 0 if it allocates nothing.
    open_limits: whether Warmup may decide max_input_tokens and max_total_tokens.
    limits: max_input_tokens and max_total_tokens as the operator gave them, None where open.
    starts_healthy: whether its first health check is a Health call, not a Prefill.
    liveness: the fields of that Prefill that differ. extra: fields that its requests always have.
    warms_up: the benchmark tool neither asks for Info nor warms up.
    """

    name: str
    packages: tuple[str, ...] = ("v3",)
    fields: frozenset[str] = frozenset()
    block_size: int | None = None
    open_limits: bool = True
    limits: tuple[int | None, int | None] = (None, None)
    starts_healthy: bool = False
    liveness: dict[str, object] = field(default_factory=dict)
    extra: dict[str, object] = field(default_factory=dict)
    warms_up: bool = True


OLD = {"open_limits": False, "limits": (96, 192)}
OLD_LIVENESS = {"truncate": 10, "blocks": [0], "slots": range(16)}
WITH_PREFIXES = frozenset({"add_special_tokens", "cache_len"})
WITH_CHUNKS = WITH_PREFIXES | {"chunk_len"}

GENERATIONS = (
    RouterGeneration("2.0.4", ("v2",), block_size=0, liveness={"truncate": 10}, **OLD),
    RouterGeneration("kv.run", ("v2",), block_size=0, liveness={"truncate": 10}, extra={"lora_id": "empty"}, **OLD),
    RouterGeneration("2.1", ("v3", "v2"), block_size=16, liveness=OLD_LIVENESS, **OLD),
    RouterGeneration("2.2", ("v3", "v2"), block_size=256, liveness=OLD_LIVENESS, **OLD),
    RouterGeneration(
        "2.3.1",
        fields=WITH_PREFIXES,
        block_size=1,
        liveness=OLD_LIVENESS | {"add_special_tokens": True},
        **OLD,
    ),
    RouterGeneration("2.4.1", fields=WITH_CHUNKS, liveness=OLD_LIVENESS | {"add_special_tokens": True}),
    RouterGeneration("3.0", fields=WITH_CHUNKS, limits=(96, 192), liveness=OLD_LIVENESS | {"add_special_tokens": True}),
    RouterGeneration(
        "3.3.7",
        fields=WITH_CHUNKS,
        # Less than the prefill budget, so that its u32 subtraction wraps around (docs/protocol.md#warming-up).
        limits=(None, 192),
        starts_healthy=True,
        liveness={"truncate": 1, "add_special_tokens": False, "blocks": [0], "slots": [0]},
    ),
    RouterGeneration("benchmark", fields=WITH_CHUNKS, block_size=0, warms_up=False, starts_healthy=True),
)
