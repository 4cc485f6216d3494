"""The launcher's command line: defaults, variables, refusals (docs/launcher.md#options)."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

from text_generation_launcher import command
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.errors import OptionError
from text_generation_launcher.options import Options
from text_generation_launcher.programs import Programs
from text_generation_launcher.settings import Environment, Origin, checked, read_environment
from text_generation_router.options import flag, table, variable

DEFAULTS = """
model-id=bigscience/bloom-560m revision validation-workers=2 sharded num-shard quantize speculate dtype
kv-cache-dtype=auto
trust-remote-code=False max-concurrent-requests=128 max-best-of=2 max-stop-sequences=4 max-top-n-tokens=5
max-input-tokens max-input-length max-total-tokens waiting-served-ratio=0.3 max-batch-prefill-tokens
max-batch-total-tokens max-waiting-tokens=20 max-batch-size cuda-graphs hostname=0.0.0.0 port=3000
prometheus-port=9000 shard-uds-path=/tmp/text-generation-server master-addr=localhost master-port=29500
huggingface-hub-cache weights-cache-override disable-custom-kernels=False deterministic=False cuda-memory-fraction=1.0
rope-scaling rope-factor json-output=False otlp-endpoint otlp-service-name=text-generation-inference.router
cors-allow-origin api-key api-key-file watermark-gamma watermark-delta ngrok=False ngrok-authtoken ngrok-edge
tokenizer-config-path
disable-grammar-support=False env=False max-client-batch-size=4 lora-adapters usage-stats=on payload-limit=2000000
chat-template
enable-prefill-logprobs=False graceful-termination-timeout=90 lora-ids=empty disable-flashinfer=False load-format=auto
lora-dir max-device-loras max-lora-rank max-lora-expert-rank max-cpu-loras unknown-adapters-as-base=False
router=embedded max-mixed-tokens request-timeout watchdog-timeout served-model-name tool-call-parser reasoning-parser
tgi-compat=False kserve=False disable-playground=False strict-model-names=False router-workers=1
max-images=16 max-image-fetch-size=33554432 image-url-timeout=10.0 image-url-private=False
"""

REFUSED = """
--ngrok --ngrok-authtoken=a --ngrok-edge=b
"""

HARMLESS = "--speculate=0 --lora-ids=empty --usage-stats=off --usage-stats=no-stack --disable-custom-kernels"

BAD_VALUES = """
--speculate=-1 --port=0 --port=65536 --port=x --dtype=float8 --quantize=exl2 --sharded=yes --max-batch-size=0
--validation-workers=0 --cuda-memory-fraction=1.5 --usage-stats=some --no-such-option --hostname=localhost
--kv-cache-dtype=fp8
"""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[LaunchContext]:
    """Launches the command line asked for; none takes place."""
    found: list[LaunchContext] = []
    monkeypatch.setattr(command, "_run", lambda launch, console: found.append(launch))
    return found


def invoke(*arguments: str, **variables: str):
    programs = Programs("python", ("server",), ("router",))
    env = {variable(name): None for name in table(Options)} | variables
    return CliRunner().invoke(command.command(), [*arguments], obj=programs, env=env)


def test_names_and_defaults_are_those_of_the_table():
    expected = dict(entry.partition("=")[::2] for entry in DEFAULTS.split())
    defaults = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(Options)}
    assert {name: "" if value is None else str(value) for name, value in defaults.items()} == expected


def test_help_names_every_option_and_its_variable():
    shown = invoke("--help")
    assert shown.exit_code == 0
    words = set(re.findall(r"[\w-]+", shown.output))
    for name in table(Options):
        assert flag(name) in words
        assert name == "env" or variable(name) in words


def test_variables_count_and_the_command_line_wins(launches: list[LaunchContext]):
    answer = invoke("--port", "4001", PORT="4000", MAX_BEST_OF="9", SHARDED="false", TRUST_REMOTE_CODE="true")
    assert answer.exit_code == 0, answer.output
    (launch,) = launches
    options = launch.options
    assert (options.port, options.max_best_of, options.sharded, options.trust_remote_code) == (4001, 9, "false", True)
    assert launch.given == {"port", "max_best_of", "sharded", "trust_remote_code"}


@pytest.mark.parametrize("argument", REFUSED.split())
def test_an_option_without_its_feature_is_refused_by_name(argument: str, launches: list[LaunchContext]):
    answer = invoke(argument)
    assert answer.exit_code == 2 and not launches
    assert f"{argument.partition('=')[0]} " in answer.stderr and "is not supported" in answer.stderr


def test_a_refused_variable_is_refused_by_name():
    answer = invoke(NGROK_EDGE="e")
    assert answer.exit_code == 2 and "--ngrok-edge e is not supported" in answer.stderr


@pytest.mark.parametrize("argument", HARMLESS.split())
def test_an_option_that_asks_for_nothing_is_accepted(argument: str, launches: list[LaunchContext]):
    assert invoke(argument).exit_code == 0 and len(launches) == 1


def test_another_router_may_have_what_the_embedded_one_lacks(launches: list[LaunchContext]):
    assert invoke("--ngrok", "--router", "other").exit_code == 0 and len(launches) == 1


@pytest.mark.parametrize("argument", BAD_VALUES.split())
def test_bad_values_are_usage_errors(argument: str, launches: list[LaunchContext]):
    answer = invoke(argument)
    assert answer.exit_code == 2 and not launches
    assert argument.partition("=")[0] in answer.stderr


@pytest.mark.parametrize("text", ["1", "yes", "True", "on"])
def test_boolean_variables_are_written_true_or_false(text: str):
    answer = invoke(TRUST_REMOTE_CODE=text)
    assert answer.exit_code == 2 and "TRUST_REMOTE_CODE" in answer.stderr


def test_a_container_name_is_no_address(launches: list[LaunchContext]):
    answer = invoke(HOSTNAME="3f2a9c")
    assert answer.exit_code == 0 and "WARN" in answer.stdout and "3f2a9c" in answer.stdout
    assert launches[0].options.hostname == "0.0.0.0"


def test_env_alone_reports_and_ends():
    answer = invoke("--env")
    assert answer.exit_code == 0
    assert "python:" in answer.stdout and "torch:" in answer.stdout and "platform:" in answer.stdout


def test_version_is_shown():
    answer = invoke("--version")
    assert answer.exit_code == 0 and answer.stdout.startswith("text-generation-launcher ")


@pytest.mark.parametrize(("text", "level"), [("warn", "warn"), ("DEBUG", "debug"), ("text_generation=trace", "info")])
def test_log_level(text: str, level: str):
    assert read_environment({"LOG_LEVEL": text}).log_level == level


def test_the_wiggle_room_is_a_share():
    with pytest.raises(OptionError, match="TGI_WIGGLE_ROOM"):
        read_environment({"TGI_WIGGLE_ROOM": "1.5"})


def test_checking_changes_nothing_that_is_right():
    environment: Environment = read_environment({})
    options = Options(hostname="::1")
    assert checked(options, Origin(frozenset(), frozenset()), environment) == (options, [])
