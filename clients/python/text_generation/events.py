"""Server-sent events, read as the HTML standard says. Knows nothing of what is in them."""

import re
from collections.abc import Iterator

_LINE_END = re.compile(rb"\r\n|\r|\n")
_MARK = b"\xef\xbb\xbf"


class EventDecoder:
    """Finds the data of each event in a stream of bytes that may be cut anywhere.

    Lines end with a line feed, a carriage return or both, never with another line break of Unicode: texts hold those.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._begun = False
        self._after_return = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that these bytes complete; an event is complete with the empty line behind it."""
        for line in self._lines(chunk):
            if line:
                self._field(line)
            elif self._data:
                data, self._data = "\n".join(self._data), []
                yield data

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in a chunk. A carriage return ends one at once, and the line feed behind it none."""
        if not chunk:
            return []
        if self._after_return:
            chunk = chunk.removeprefix(b"\n")
        self._after_return = chunk.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(_MARK)
        return lines

    def _field(self, line: bytes) -> None:
        """Keep what a line adds to the data; comments begin with a colon, and other fields mean nothing here."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))
