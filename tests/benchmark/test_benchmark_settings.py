"""Flags and variables of text-generation-benchmark."""

from pathlib import Path

import pytest

from text_generation_benchmark.settings import Outputs, Sampling, Settings, Workload, read_settings

USUAL = Settings(Workload(), Outputs(), Path("/tmp/text-generation-server-0"), None, "main", False)


def test_without_options_it_measures_what_tgi_does():
    assert read_settings([], {}) == USUAL
    workload = USUAL.workload
    assert workload.batch_sizes == (1, 2, 4, 8, 16, 32)
    assert (workload.sequence_length, workload.decode_length, workload.runs, workload.warmups) == (10, 8, 10, 1)


def test_every_flag_is_read():
    arguments = (
        "-m /s -t tokenizer --revision r --shard-warmup -b 4 1 --batch-size 4 -s 5 -d 6 -r 7 -w 0 --top-n-tokens 3 "
        "--max-batch-prefill-tokens 10 --temperature 0.5 --top-k 2 --top-p 0.3 --typical-p 0.4 "
        "--repetition-penalty 1.1 --frequency-penalty -0.5 --watermark --do-sample "
        "--json j --markdown m --plots p --compare c"
    )
    assert read_settings(arguments.split(), {}) == Settings(
        Workload((4, 1), 5, 6, 7, 0, 3, 10, Sampling(0.5, 2, 0.3, 0.4, 1.1, -0.5, True, True)),
        Outputs(Path("j"), Path("m"), Path("p"), Path("c")),
        Path("/s"),
        "tokenizer",
        "r",
        True,
    )


def test_flags_win_over_variables():
    variables = {
        "SEQUENCE_LENGTH": "12",
        "DECODE_LENGTH": "9",
        "TOP_P": "0.5",
        "DO_SAMPLE": "true",
        "TOKENIZER_NAME": "t",
    }
    found = read_settings(["--sequence-length", "20"], variables)
    assert (found.workload.sequence_length, found.workload.decode_length) == (20, 9)
    assert found.workload.sampling == Sampling(top_p=0.5, do_sample=True)
    assert found.tokenizer_name == "t"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "'0', expected a whole number of at least 1"),
        (["--decode-length", "1"], "'1', expected a whole number of at least 2"),
        (["--runs", "two"], "'two', expected a whole number"),
        (["--temperature", "nan"], "'nan', expected a number"),
        (["--temperature", "warm"], "'warm', expected a number"),
        (["--max-batch-prefill-tokens", "9"], "is 9, expected at least --sequence-length, which is 10"),
        (["--sequence", "9"], "unrecognized arguments: --sequence"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as ending:
        read_settings(arguments, {})
    assert ending.value.code == 2
    assert message in capsys.readouterr().err
