"""The command, against a real server of a tiny model in another process."""

import json
import subprocess
import sys

import pytest

from text_generation_benchmark import cli
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.prompt import prompt_of_tokens, prompt_of_words

SHORT = ["--sequence-length", "20", "--decode-length", "5", "--runs", "2", "--batch-size", "1", "3"]


def benchmark(*arguments):
    command = [sys.executable, "-m", "text_generation_benchmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def first(shard, model, tmp_path_factory):
    """The folder and output of a whole run."""
    folder = tmp_path_factory.mktemp("out")
    outputs = ["--json", folder / "first.json", "--markdown", folder / "first.md", "--plots", folder / "plots"]
    return folder, benchmark("-m", shard, "-t", model, "--shard-warmup", *SHORT, *outputs)


def test_everything_is_measured_and_written(first):
    folder, done = first
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "first.json").read_text())
    assert [result["batch_size"] for result in found["results"]] == [1, 3]
    for result in found["results"]:
        assert [len(run["decode_s"]) for run in result["runs"]] == [4, 4]
        assert [run["decode_tokens"] for run in result["runs"]] == [4 * result["batch_size"]] * 2
    assert found["shard"]["dtype"] == "torch.float32"
    assert (folder / "first.md").read_text() == done.stdout.rstrip("\n") + "\n"
    assert "batch 3: prefill" in done.stderr
    assert len(list((folder / "plots").iterdir())) == 4


def test_a_run_is_compared_with_an_earlier_one(first, shard):
    folder, _ = first
    again = ["--batch-size", "3", "--sequence-length", "20", "--decode-length", "5", "--runs", "1", "--do-sample"]
    done = benchmark("-m", shard, *again, "--compare", folder / "first.json", "--json", folder / "second.json")
    assert done.returncode == 0, done.stderr
    comparison = json.loads((folder / "second.json").read_text())["comparison"]
    assert comparison["different_parameters"]["do_sample"] == [True, False]
    assert [result["batch_size"] for result in comparison["results"]] == [3]
    assert "## Compared" in done.stdout


def test_what_was_measured_before_an_error_is_reported(shard, tmp_path):
    more_than_rows = ["--batch-size", "1", "600", "--sequence-length", "2", "--decode-length", "3"]
    done = benchmark("-m", shard, *more_than_rows, "--json", tmp_path / "found.json")
    assert done.returncode == 1
    assert "text-generation-benchmark: Prefill failed" in done.stderr
    assert [result["batch_size"] for result in json.loads((tmp_path / "found.json").read_text())["results"]] == [1]


def test_nobody_at_the_socket_is_an_error(tmp_path):
    done = benchmark("-m", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no socket at" in done.stderr


def test_a_cache_too_small_is_noticed_before_measuring(start_fake, directory, monkeypatch, capsys):
    start_fake(num_slots=32)
    monkeypatch.setattr(sys, "argv", ["text-generation-benchmark", "-m", f"{directory}/shard-0", "--shard-warmup"])
    assert cli.main() == 1
    assert "room for 32 tokens, the largest batch needs 545" in capsys.readouterr().err


def test_ctrl_c_reports_what_there_is(start_fake, directory, monkeypatch, capsys):
    start_fake()
    arguments = ["-m", f"{directory}/shard-0", "--shard-warmup", *SHORT]
    monkeypatch.setattr(sys, "argv", ["text-generation-benchmark", *arguments])
    sweep = cli.sweep

    def interrupted(*arguments):
        yield next(sweep(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "sweep", interrupted)
    assert cli.main() == 130
    assert "### Prefill" in capsys.readouterr().out


def test_plots_without_matplotlib_are_refused_before_measuring(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(sys, "argv", ["text-generation-benchmark", "--plots", str(tmp_path)])
    assert cli.main() == 1
    assert "pip install 'kvrun[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("tokens", [1, 30, 500])
def test_prompts_have_enough_tokens(model, tokens):
    assert tokens <= len(prompt_of_words(tokens).split())
    assert tokens <= len(prompt_of_tokens(str(model), "main", tokens).encode()) <= tokens + 8


@pytest.mark.parametrize("content", [None, "not json"])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BenchmarkError, match="leave --tokenizer-name out"):
        prompt_of_tokens(str(tmp_path), "main", 5)
