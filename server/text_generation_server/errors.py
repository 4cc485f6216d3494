"""What can go wrong, as exceptions with a text for the user. Knows no transport: `rpc/` turns them into statuses."""

QUOTED = 200
"""Most characters of what is refused that a text repeats."""


def excerpt(text: str) -> str:
    """A text that may come from a client, with the middle left out where it is longer than `QUOTED` characters."""
    half = QUOTED // 2
    return text if len(text) <= QUOTED else f"{text[:half]} … {text[-half:]}"


class StartError(Exception):
    """The server cannot start as asked; the text says what to change."""


class InvalidSettings(StartError):
    """An option or environment variable has a value that cannot be used."""


class ModelNotFound(StartError):
    """There is no such model here, and it could not be downloaded."""


class UnsupportedModel(StartError):
    """The model needs something not served; the text names the key and the value that were refused."""


class SocketInUse(StartError):
    """Another living process serves the socket."""


class GenerationError(Exception):
    """A call failed; the caller gets the text, serving goes on unless a subclass says otherwise."""


class InvalidRequest(GenerationError):
    """What was asked for cannot be done, now or later."""


class BadImage(InvalidRequest):
    """An image cannot be read, or is none that is taken; the text begins with "it"."""


class UnknownAdapter(InvalidRequest):
    """An adapter was named that nothing here has."""


class UnknownBatch(GenerationError):
    """A batch that is not cached was named."""


class OutOfBlocks(GenerationError):
    """Rows or cache slots are taken; the same request can succeed later."""


class NotEnoughMemory(GenerationError):
    """The limits asked for do not fit into memory; the text says which would."""


class NotTheLeader(GenerationError):
    """A follower rank was asked for work that only rank 0 does."""


class ModelError(GenerationError):
    """A step failed on the device, or a rank is gone. Fatal: the process must end after answering."""
