"""What ends a benchmark. Knows nothing of causes."""


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message says what was got, what was expected and what to do."""
