"""What is traced of generations and of calls to the shards, under text-generation-inference's names.

The classes without a prefix note nothing: they are what there is without a collector. Knows neither HTTP nor gRPC.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from text_generation_router.errors import StartError
from text_generation_router.types import GeneratedText, ValidRequest
from text_generation_server.errors import StartError as ServerStartError
from text_generation_server.tracing import Kind, Span, Tracing

MOST_LINKS = 128
"""Of a span, by OpenTelemetry's default."""


class GenerationTrace:
    """One generation, which ends when the context is left."""

    def batched(self) -> None:
        """It enters a batch, for the first time or again."""

    def finished(self, final: GeneratedText, times: Callable[[], Mapping[str, float]]) -> None:
        """Its answer is complete. times: what to call for how long its parts took, in seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is over, one way or the other."""


class StepTrace:
    """One call to the shards. carried: what tells them of it."""

    carried: tuple[tuple[str, str], ...] = ()

    def end(self, failure: str | None = None) -> None:
        """It is answered, or has failed."""


class Traces:
    """Begins traces."""

    def generation(self, request: ValidRequest, parent: Mapping[str, str] | None = None) -> GenerationTrace:
        """Of a request that is about to be queued. parent: carries the span that it belongs to, if not this task's."""
        return _NO_GENERATION

    def step(self, method: str, members: Sequence[GenerationTrace], added: Sequence[GenerationTrace]) -> StepTrace:
        """Of a call for some generations, a few of which are new to the batch."""
        return NO_STEP


_NO_GENERATION = GenerationTrace()
NO_STEP = StepTrace()
NO_TRACES = Traces()


class RecordedTraces(Traces):
    """Traces that a collector gets."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def generation(self, request: ValidRequest, parent: Mapping[str, str] | None = None) -> GenerationTrace:
        """A child of the HTTP request's span."""
        return _RecordedGeneration(self._tracing, request, parent)

    def step(self, method: str, members: Sequence[GenerationTrace], added: Sequence[GenerationTrace]) -> StepTrace:
        """For one generation alone, a part of its trace; for several, a trace of its own, linked with theirs."""
        return _RecordedStep(self._tracing, method, _stages(members), _stages(added))


class _RecordedGeneration(GenerationTrace):
    """`generate`, and in it `queued` and then `infer`."""

    def __init__(self, tracing: Tracing, request: ValidRequest, parent: Mapping[str, str] | None) -> None:
        self._tracing = tracing
        self._whole = tracing.start("generate", parent=tracing.current() if parent is None else parent)
        self._whole.note(
            input_length=len(request.input_ids),
            max_new_tokens=request.max_new_tokens,
            do_sample=request.sampling.do_sample,
            temperature=request.sampling.temperature,
            adapter_id=request.adapter_id,
        )
        self.stage = tracing.start("queued", parent=self._whole)
        self._waits = True
        self._complete = False

    def batched(self) -> None:
        if self._waits:
            self._waits = False
            self.stage.end()
            self.stage = self._tracing.start("infer", parent=self._whole)

    def finished(self, final: GeneratedText, times: Callable[[], Mapping[str, float]]) -> None:
        self._complete = True
        self._whole.note(
            generated_tokens=final.generated_tokens,
            finish_reason=final.finish_reason.value,
            seed=None if final.seed is None else str(final.seed),  # OpenTelemetry's integers have a sign
            **times(),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = None
        if error is not None and not self._complete:  # who has got the end may close a stream, which raises here too
            failure = str(error) if isinstance(error, Exception) else "given up"
        self.stage.end(failure)
        self._whole.end(failure)


class _RecordedStep(StepTrace):
    """`prefill` or `decode`."""

    def __init__(self, tracing: Tracing, method: str, members: list[Span], added: list[Span]) -> None:
        if len(members) == 1:
            self._span = tracing.start(method, Kind.CLIENT, members[0], batch_size=1)
        else:
            links = members[:MOST_LINKS]
            self._span = tracing.start(method, Kind.CLIENT, None, links, batch_size=len(members))
            for span in added:
                span.link(self._span)
        self.carried = tracing.carried(self._span)

    def end(self, failure: str | None = None) -> None:
        self._span.end(failure)


def _stages(traces: Sequence[GenerationTrace]) -> list[Span]:
    return [trace.stage for trace in traces if isinstance(trace, _RecordedGeneration)]


def tracing_of(endpoint: str | None, service_name: str) -> Tracing | None:
    """What sends this process's spans, if a collector is asked for. Raises StartError."""
    if endpoint is None:
        return None
    try:
        return Tracing(endpoint, service_name)
    except ServerStartError as error:
        raise StartError(str(error)) from error
