"""Flags of `text-generation-benchmark http`, and what is said about those that cannot be used."""

from pathlib import Path

import pytest

from text_generation_benchmark.http.load import Rate, Streams
from text_generation_benchmark.http.settings import read_settings
from text_generation_benchmark.http.targets import Target

URL = "http://127.0.0.1:3000"


def test_an_address_names_its_endpoint():
    [source] = read_settings([URL]).sources
    assert (source.path, source.endpoint.openai) == ("/generate_stream", False)
    found = Target.parse("https://[::1]/some/v1/chat/completions/")
    assert (found.host_header, found.tls, found.base, found.path) == (
        "[::1]:443", True, "/some", "/some/v1/chat/completions",
    )  # fmt: skip


def test_defaults_and_lists():
    settings = read_settings([URL])
    assert settings.plan.loads == (Streams(1),)
    assert (settings.plan.limit.requests, settings.plan.limit.duration_s) == (None, 30.0)
    settings = read_settings(f"{URL} --rate 1 2.5 --requests 9 --max-in-flight 4 --goodput ttft:500 itl:50".split())
    assert settings.plan.loads == (Rate(1.0, 4), Rate(2.5, 4))
    assert settings.plan.limit.duration_s is None
    assert settings.goals_ms == {"ttft": 500.0, "itl": 50.0}


def test_secrets_are_not_reported():
    settings = read_settings([URL, "--header", "Authorization: Bearer secret"])
    assert settings.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in str(settings.parameters())


def test_two_sources_may_be_servers_or_files():
    assert read_settings(["--compare", "a.json", "b.json"]).sources == (Path("a.json"), Path("b.json"))
    assert [source.path for source in read_settings(["--compare", URL, f"{URL}/v1/completions"]).sources] == [
        "/generate_stream", "/v1/completions",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "expected one server to measure, or --compare"),
        (f"{URL} --compare a b", "expected one server to measure, or --compare"),
        ("127.0.0.1:3000", "expected one like http://127.0.0.1:3000"),
        (f"{URL}/v1/embeddings", "expected one of /generate_stream, /v1/completions, /v1/chat/completions"),
        ("http://host:many", "has no port that can be used"),
        (f"{URL} --streams 0", "whole number of at least 1"),
        (f"{URL} --rate 0", "number above 0"),
        (f"{URL} --streams 1 --rate 1", "not allowed with"),
        (f"{URL} --max-in-flight 3", "--max-in-flight bounds --rate"),
        (f"{URL} --workload 12", "no workload; expected one like"),
        (f"{URL} --goodput tfft:3", "expected one of ttft, itl, tpot, e2e with milliseconds"),
        (f"{URL} --parameters []", "expected a JSON object"),
        (f"{URL} --header secret", "expected NAME:VALUE"),
        (f"{URL} --plot p.gif", "ends with .png or .svg"),
        (f"{URL} --raw", "--raw adds to what --json writes"),
        ("--compare a b --seed 3", "--seed is for measuring"),
    ],
)
def test_what_cannot_be_used_is_told_what_can(arguments, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        read_settings(arguments.split())
    assert told in " ".join(capsys.readouterr().err.split())
