"""All batch sizes of a workload, one after the other. Knows no reports."""

from collections.abc import Callable, Iterator

from text_generation_benchmark.client import ShardClient
from text_generation_benchmark.measurements import Measurement, measure
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.scenario import run_once
from text_generation_benchmark.settings import Workload


def sweep(
    client: ShardClient, workload: Workload, batches: Batches, progress: Callable[[str], None]
) -> Iterator[Measurement]:
    """The figures of each batch size as soon as they are there. Raises BenchmarkError."""
    for batch_size in workload.batch_sizes:
        for _ in range(workload.warmups):
            run_once(client, batches.prefills(batch_size), workload.decode_length)
        runs = [run_once(client, batches.prefills(batch_size), workload.decode_length) for _ in range(workload.runs)]
        measurement = measure(batch_size, workload.sequence_length, runs)
        progress(_line(measurement))
        yield measurement


def _line(measurement: Measurement) -> str:
    prefill, decode = measurement.prefill, measurement.decode
    return (
        f"batch {measurement.batch_size}: prefill {prefill.latency_ms.average:.2f} ms, "
        f"decode {decode.step_latency_ms.average:.2f} ms a step, {decode.tokens_per_second.average:.1f} tokens/s"
    )
