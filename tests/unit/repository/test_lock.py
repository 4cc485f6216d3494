"""The lock holds what `make install` installs: everything pyproject.toml asks for, in versions that it allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements/lock.txt").read_text()
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [*PROJECT["dependencies"], *CLIENT["dependencies"], *EXTRAS["dev"], *EXTRAS["test"], *EXTRAS["demo"]]
PINS = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if re.match(r"\w", line)]


def found(name, python):
    """The version for this Python on a Linux machine."""
    system = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    system |= {"platform_machine": "x86_64", "platform_system": "Linux", "platform_python_implementation": "CPython"}
    named = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [str(pin.specifier)[2:] for pin in named if pin.marker is None or pin.marker.evaluate(system)]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_everything_asked_for_is_locked_once_in_a_version_that_is_allowed(python):
    for asked in map(Requirement, ASKED):
        if asked.name not in ("kvrun", "torch"):
            (version,) = found(asked.name, python)
            assert asked.specifier.contains(version, prereleases=True), f"{asked}: run `make lock`"


def test_nothing_is_locked_without_hashes_and_torch_is_not_locked():
    assert len(re.findall(r"^\w.* \\\n    --hash=", LOCK, re.M)) == len(PINS)
    assert not found("torch", "3.11")


def test_the_lock_belongs_to_the_torch_that_is_installed_by_default():
    (default,) = re.findall(r"^LOCKED_TORCH := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    settings = tomllib.loads((ROOT / "requirements/uv.toml").read_text())
    assert settings["constraint-dependencies"] == [default]
    torch = next(entry for entry in settings["dependency-metadata"] if entry["name"] == "torch")
    assert default == f"torch=={torch['version']}"
