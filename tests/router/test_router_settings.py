"""Options from flags and environment, and the limits that follow from them and from the shards."""

from dataclasses import replace

import pytest

from text_generation_router.errors import InvalidSettings, StartError
from text_generation_router.handshake import limits_after, most_requests, shake_hands
from text_generation_router.log import effective_level
from text_generation_router.settings import Settings, listen_address, read_settings
from text_generation_router.types import ShardInfo, TokenLimits, WarmupAnswer

INFO = ShardInfo(False, "torch.float32", "cpu", None, 0, True, True, "paged", 1)


def test_defaults_are_those_of_text_generation_inference():
    settings = read_settings([], {})
    assert settings == Settings()
    assert (settings.max_concurrent_requests, settings.max_best_of, settings.max_stop_sequences) == (128, 2, 4)
    assert (settings.max_top_n_tokens, settings.waiting_served_ratio, settings.max_waiting_tokens) == (5, 1.2, 20)
    assert (settings.max_batch_prefill_tokens, settings.port, settings.hostname) == (4096, 3000, "0.0.0.0")
    assert settings.master_shard_uds_path == "/tmp/text-generation-server-0"
    assert (settings.validation_workers, settings.payload_limit) == (2, 2_000_000)


def test_flags_win_over_the_environment():
    environment = {"PORT": "8080", "MAX_BEST_OF": "7", "JSON_OUTPUT": "true", "CORS_ALLOW_ORIGIN": "a, b"}
    settings = read_settings(["-p", "9", "--max-batch-size", "3", "--api-key", "k"], environment)
    assert (settings.port, settings.max_best_of, settings.max_batch_size, settings.api_key) == (9, 7, 3, "k")
    assert settings.json_output and settings.cors_allow_origin == ["a", "b"]
    origins = read_settings(["--cors-allow-origin", "c", "--cors-allow-origin", "d"], environment).cors_allow_origin
    assert origins == ["c", "d"]


def test_everything_that_launchers_pass_is_accepted():
    flags = "--max-client-batch-size 4 --max-concurrent-requests 128 --max-best-of 2 --max-stop-sequences 4 "
    flags += "--max-top-n-tokens 5 --max-batch-prefill-tokens 4096 --waiting-served-ratio 0.3 --max-waiting-tokens 20 "
    flags += "--validation-workers 2 --hostname 0.0.0.0 --port 3000 --prometheus-port 9000 "
    flags += "--master-shard-uds-path /tmp/x-0 --tokenizer-name model --payload-limit 2000000 --usage-stats off "
    flags += "--tokenizer-config-path x.json --chat-template c.jinja "
    flags += "--disable-grammar-support --json-output --trust-remote-code --revision main "
    flags += "--otlp-service-name text-generation-inference.router --max-batch-total-tokens 9 --max-total-tokens 8"
    assert read_settings(flags.split(), {}).tokenizer_name == "model"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--ngrok", None),
        ("--ngrok-authtoken", "a"),
        ("--ngrok-edge", "b"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(flag, value):
    with pytest.raises(InvalidSettings, match=flag):
        read_settings([flag] if value is None else [flag, value], {})
    variable = flag[2:].replace("-", "_").upper()
    with pytest.raises(InvalidSettings, match=flag):
        read_settings([], {variable: value or "true"})


@pytest.mark.parametrize(
    ("flags", "environment", "text"),
    [
        (["--validation-workers", "0"], {}, "--validation-workers is 0, expected at least 1"),
        (["--max-batch-size", "0"], {}, "--max-batch-size is 0"),
        (["--max-input-tokens", "5", "--max-total-tokens", "5"], {}, "must be less than --max-total-tokens"),
        (["--port", "65536"], {}, "--port is 65536, expected at most 65535"),
        ([], {"USAGE_STATS": "maybe"}, "USAGE_STATS is 'maybe', expected on or off or no-stack"),
        ([], {"PORT": "http"}, "PORT is 'http', expected int"),
        ([], {"JSON_OUTPUT": "1"}, "JSON_OUTPUT is '1', expected `true` or `false`"),
    ],
)
def test_values_that_cannot_be_used(flags, environment, text):
    with pytest.raises(InvalidSettings, match=text):
        read_settings(flags, environment)


@pytest.mark.parametrize("arguments", [["--nothing"], ["--port", "x"], ["--max-best", "2"], ["--usage-stats", "maybe"]])
def test_unknown_flags_end_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, {})
    assert ended.value.code == 2 and "usage: text-generation-router" in capsys.readouterr().err


def test_a_host_name_is_no_address():
    assert listen_address("::1") == "::1" and listen_address("127.0.0.1") == "127.0.0.1"
    assert listen_address("my-container-5d8f") is None


@pytest.mark.parametrize(
    ("expression", "level"),
    [
        ("info", "INFO"),
        ("warn", "WARNING"),
        ("off", "CRITICAL"),
        ("info,text_generation_router=debug", "DEBUG"),
        ("text_generation_router=debug,warn", "DEBUG"),
        ("hyper=trace", "INFO"),
    ],
)
def test_log_levels(expression, level):
    assert effective_level(expression) == level


async def test_an_absurd_prefill_is_refused_before_any_shard_is_asked():
    with pytest.raises(StartError, match="--max-batch-prefill-tokens is 1000000000, more than the 16777216"):
        await shake_hands(Settings(max_batch_prefill_tokens=10**9, master_shard_uds_path="/no/such/socket"))


def test_limits_are_what_warm_up_found():
    answer = WarmupAnswer(10_000, 2047, 2048)
    assert limits_after(answer, INFO, Settings()) == TokenLimits(2047, 2048, 4096, 10_000)


@pytest.mark.parametrize(
    ("told", "asked", "most"), [(None, None, None), (40, None, 40), (None, 3, 3), (40, 3, 3), (40, 50, 40)]
)
def test_a_batch_has_no_more_requests_than_fit(told, asked, most):
    assert most_requests(WarmupAnswer(10_000, 99, 200, told), Settings(max_batch_size=asked)) == most


def test_a_request_must_fit_beside_the_scratch_block():
    info = replace(INFO, block_size=16)
    settings = Settings(max_batch_prefill_tokens=64)
    assert limits_after(WarmupAnswer(128, 127, 128), info, settings) == TokenLimits(112, 113, 64, 128)
    with pytest.raises(StartError, match="--max-total-tokens 128 does not fit"):
        limits_after(WarmupAnswer(128, 100, 128), info, replace(settings, max_total_tokens=128))


@pytest.mark.parametrize(
    ("answer", "settings", "info", "text"),
    [
        (WarmupAnswer(10_000, 99, 200), Settings(max_input_tokens=100), INFO, "--max-input-tokens is 100"),
        (WarmupAnswer(10_000, 99, 200), Settings(max_total_tokens=300), INFO, "--max-total-tokens is 300"),
        (WarmupAnswer(5000, 99, 6000), Settings(), INFO, "not enough memory for --max-total-tokens 6000"),
        (WarmupAnswer(1000, 99, 200), Settings(), INFO, "not enough memory for --max-batch-prefill-tokens 4096"),
        (WarmupAnswer(10_000, 200, 200), Settings(), INFO, "must be less than --max-total-tokens 200"),
        (
            WarmupAnswer(10_000, 5000, 6000),
            Settings(max_input_tokens=5000),
            replace(INFO, support_chunking=False),
            "--max-input-tokens 5000 is more than --max-batch-prefill-tokens 4096, .* in pieces",
        ),
    ],
)
def test_limits_that_do_not_go_together(answer, settings, info, text):
    with pytest.raises(StartError, match=text):
        limits_after(answer, info, settings)


def test_prompts_are_as_long_as_a_prefill_where_shards_do_not_take_them_in_pieces():
    limits = limits_after(WarmupAnswer(10_000, 5000, 6000), replace(INFO, support_chunking=False), Settings())
    assert (limits.max_input_tokens, limits.max_total_tokens) == (4096, 6000)


def test_shards_that_measure_nothing_leave_the_size_to_the_user():
    answer = WarmupAnswer(None, 99, 100)
    assert limits_after(answer, INFO, Settings()).max_batch_total_tokens == 16_000
    assert limits_after(answer, INFO, Settings(max_batch_total_tokens=5000)).max_batch_total_tokens == 5000
