"""What rank 0 asks the other ranks, and waits for: over a local socket of its own, beside the plans, which go on.

For one thread at a time on rank 0, and a thread of its own on each follower. Knows nothing of what is asked.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from text_generation_server.distributed.plans import accept_all, connect
from text_generation_server.errors import ModelError

Q = TypeVar("Q")
A = TypeVar("A")


def question_socket(uds_path: str) -> str:
    """Where rank 0 of a shard group listens."""
    return f"{uds_path}-questions"


class Asker(Generic[Q, A]):
    """Rank 0's end."""

    def __init__(self, path: str, followers: int) -> None:
        self._connections = accept_all(path, followers)

    def ask(self, question: Q) -> list[A]:
        """What each follower answers.

        Raises:
            ModelError: one has gone.
        """
        try:
            for connection in self._connections:
                connection.send(question)
            return [connection.recv() for connection in self._connections]
        except (EOFError, OSError) as error:
            raise ModelError(f"a follower rank has gone: {error}") from error


def answer(path: str, answer_to: Callable[[Q], A]) -> None:
    """A follower's end: answer what is asked until rank 0 has gone."""
    connection = connect(path)
    while True:
        try:
            question = connection.recv()
            connection.send(answer_to(question))
        except (EOFError, OSError):
            return
