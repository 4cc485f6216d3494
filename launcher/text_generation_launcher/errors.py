"""The launcher's errors. Knows nothing of how they are shown."""


class LaunchError(Exception):
    """The launch cannot begin or go on: a sentence for the user, and the last lines of its cause. Exit code 1."""

    def __init__(self, message: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class OptionError(Exception):
    """An option or its environment variable has a value that cannot be used: a sentence that names it. Exit code 2."""
