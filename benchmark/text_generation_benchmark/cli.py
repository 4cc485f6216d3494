"""The command `text-generation-benchmark`: options, the order of things, and the outcome as an exit code."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from text_generation_benchmark.client import ShardClient, ShardInfo, WarmupLimits
from text_generation_benchmark.compare import Earlier
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.measurements import Measurement
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.plots import draw, require_matplotlib
from text_generation_benchmark.prompt import prompt_of_tokens, prompt_of_words
from text_generation_benchmark.report import document, markdown
from text_generation_benchmark.settings import HTTP, Settings, Workload, settings_of_command
from text_generation_benchmark.sweep import sweep

_FAILED, _INTERRUPTED = 1, 130


def main() -> int:
    """Measure and report. 0: done; 1: could not start, or not measure everything; 2: unknown flags; 130: Ctrl-C."""
    if sys.argv[1:2] == [HTTP]:
        from text_generation_benchmark.http import command  # which shards have no use for

        return command.main(sys.argv[2:])
    settings = settings_of_command(sys.argv[1:])
    try:
        return _run(settings)
    except BenchmarkError as error:
        return _complain(error)


def _run(settings: Settings) -> int:
    """Whatever has been measured is reported, even if the rest could not be."""
    if settings.outputs.plots is not None:
        require_matplotlib()
    earlier = Earlier.read(settings.outputs.compare) if settings.outputs.compare is not None else None
    prompt = _prompt(settings)
    code = 0
    measurements: list[Measurement] = []
    with ShardClient.connect(settings.socket) as client:
        info = client.info()
        client.clear()
        batches = Batches(settings.workload, [prompt], info)
        try:
            if settings.shard_warmup:
                _warm_up(client, settings.workload, batches)
            for measurement in sweep(client, settings.workload, batches, _progress):
                measurements.append(measurement)
        except BenchmarkError as error:
            code = _complain(error)
        except KeyboardInterrupt:
            code = _INTERRUPTED
    if measurements:
        _report(settings, info, measurements, earlier)
    return code


def _prompt(settings: Settings) -> str:
    tokens = settings.workload.sequence_length
    if settings.tokenizer_name is None:
        return prompt_of_words(tokens)
    return prompt_of_tokens(settings.tokenizer_name, settings.revision, tokens)


def _warm_up(client: ShardClient, workload: Workload, batches: Batches) -> None:
    """Ask for the workload's own lengths, so that nothing is reserved that it does not use."""
    _progress("warming the shard up")
    largest = max(workload.batch_sizes)
    limits = WarmupLimits(
        max_prefill_tokens=workload.max_batch_prefill_tokens or largest * workload.sequence_length,
        max_input_tokens=workload.sequence_length,
        max_total_tokens=workload.sequence_length + workload.decode_length,
    )
    fitting, needed = client.warm_up(limits), batches.needed_tokens(largest)
    if fitting is not None and fitting < needed:
        raise BenchmarkError(
            f"the server has room for {fitting} tokens, the largest batch needs {needed}; measure smaller batches"
        )


def _report(settings: Settings, info: ShardInfo, measurements: Sequence[Measurement], earlier: Earlier | None) -> None:
    outputs = settings.outputs
    found = document(settings, info, measurements, earlier)
    tables = markdown(found)
    print(tables)
    if outputs.json is not None:
        _write(outputs.json, json.dumps(found, indent=2) + "\n")
    if outputs.markdown is not None:
        _write(outputs.markdown, tables)
    if outputs.plots is not None:
        label = "this run" if outputs.json is None else outputs.json.stem
        for path in draw(outputs.plots, found["results"], earlier, label):
            _progress(f"drew {path}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    _progress(f"wrote {path}")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(error: BenchmarkError) -> int:
    _progress(f"text-generation-benchmark: {error}")
    return _FAILED
