"""Request bodies some of whose keys would have to act but cannot: these are refused by name. Knows no API."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict

from text_generation_router.errors import InvalidInput
from text_generation_router.schemas import Body
from text_generation_server.errors import excerpt

OFF = (None, False)
NONE: tuple[Any, ...] = (None, [], {})


class RefusingBody(Body):
    """A body of an API with more keys than we have.

    CANNOT: keys that would have to change the answer and cannot, with the values that ask for nothing.
    """

    model_config = ConfigDict(extra="allow")

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def check_keys(self) -> None:
        """Raise InvalidInput for a key that cannot act."""
        given: dict[str, Any] = self.model_extra or {}
        for name, neutral in self.CANNOT.items():
            if given.get(name) not in neutral:
                raise InvalidInput(
                    f"`{name}` is not supported by this version of the router; leave it out. "
                    f"Given: {excerpt(repr(given[name]))}"
                )
