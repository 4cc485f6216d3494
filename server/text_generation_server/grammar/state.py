"""Where one sequence stands in its grammar. Knows nothing of other sequences, devices or how tokens are chosen."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from llguidance import LLMatcher

from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.syntax import unusable

TokenSource = Callable[[], int]
"""A token that a launched step chooses; calling it waits for that step, and raises what it raised."""


class GrammarState:
    """One sequence's way through its grammar, made as its grammar is compiled.

    The engine's thread sets `newest` and, once the step that chose a token has been read, looks at `failure`. All else
    happens in the thread that makes masks.

    newest: the token that the sequence's last launched step chooses, None before its first.
    history: what the sequence has said before, as far as its grammar goes.
    failure: why the grammar cannot be followed any more, None while it is: the sequence must end.
    """

    __slots__ = ("_compiled", "_history", "_matcher", "failure", "newest")

    def __init__(self, compiled: Future[LLMatcher], history: Sequence[int] = ()) -> None:
        self.newest: TokenSource | None = None
        self.failure: InvalidRequest | None = None
        self._compiled = compiled
        self._history = list(history)
        self._matcher: LLMatcher | None = None

    def advanced(self, newest: TokenSource | None) -> LLMatcher | None:
        """The matcher behind `newest`, which must be the next token; None after a failure.

        Waits for the token, or for the grammar to be compiled.
        """
        token = None if newest is None else newest()
        if self._matcher is None and self.failure is None:
            try:
                self._matcher = self._compiled.result().deep_copy()
                self._matcher.consume_tokens(self._history)
            except InvalidRequest as error:
                self.failure = error
            except BaseException as error:  # what the library's native code throws is no `Exception`
                self.failure = unusable(str(error))
        if self._matcher is not None and token is not None:
            self._matcher.consume_token(token)
        return self._matcher

    def settle(self) -> None:
        """See whether the library has given up, as it does where following a grammar takes too much."""
        if self._matcher is not None and self._matcher.is_error():
            self.failure = unusable(self._matcher.get_error())
            self._matcher = None
