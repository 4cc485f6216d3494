"""The environment of what measurements start: this process's and more. The only one among them that touches it."""

import os


def with_variables(**variables: object) -> dict[str, str]:
    """The environment of a child that has these beside what this process has."""
    return os.environ | {name: str(value) for name, value in variables.items()}


def set_defaults(**variables: str) -> None:
    """Set what is not set, for libraries that are imported later."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
