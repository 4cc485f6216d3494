"""Reads SentencePiece's tokenizer.model, a protobuf message, as far as tokenising needs it. Knows no tokenizer library.

Fields and defaults: github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

Value = int | bytes
Message = dict[int, Value]


class Kind(IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How text is cut into pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """An entry of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The vocabulary and how text is normalised.

    character_map: a compiled map for normalisation, empty if there is none.
    dummy_prefix: a space is put before the text. single_spaces: outer spaces are dropped, inner runs become one.
    bos, eos: the ids of these roles, negative if there are none.
    """

    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    character_map: bytes
    dummy_prefix: bool
    single_spaces: bool
    escaped_spaces: bool
    spaces_as_suffix: bool
    byte_fallback: bool
    unknown: int
    bos: int
    eos: int

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Parse the content of a file. ValueError if it is none."""
        try:
            fields = list(_fields(data))
            pieces = tuple(_piece(dict(_fields(_bytes(value)))) for field, value in fields if field == 1)
            trainer, normalizer = (dict(_fields(_bytes(dict(fields).get(field, b"")))) for field in (2, 3))
            if not pieces:
                raise ValueError("it has no pieces")
            return cls(
                pieces=pieces,
                algorithm=Algorithm(_int(trainer, 3, Algorithm.UNIGRAM)),
                character_map=_bytes(normalizer.get(2, b"")),
                dummy_prefix=bool(_int(normalizer, 3, 1)),
                single_spaces=bool(_int(normalizer, 4, 1)),
                escaped_spaces=bool(_int(normalizer, 5, 1)),
                spaces_as_suffix=bool(_int(trainer, 24, 0)),
                byte_fallback=bool(_int(trainer, 35, 0)),
                unknown=_int(trainer, 40, 0),
                bos=_int(trainer, 41, 1),
                eos=_int(trainer, 42, 2),
            )
        except (IndexError, struct.error) as error:
            raise ValueError("it ends early") from error

    def text(self, token_id: int) -> str | None:
        """The piece with this id."""
        return self.pieces[token_id].text if 0 <= token_id < len(self.pieces) else None


def _piece(message: Message) -> Piece:
    score = struct.unpack("<f", _bytes(message.get(2, b"\0\0\0\0")))[0]
    return Piece(_bytes(message.get(1, b"")).decode(), score, Kind(_int(message, 3, Kind.NORMAL)))


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message with their numbers: integers as such, all else as its bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case other:
                raise ValueError(f"it has a field of wire type {other}")
        if at + size > len(data):
            raise ValueError("it ends early")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _int(message: Message, field: int, default: int) -> int:
    """An int32, whose negative values are written as 64 bits."""
    value = message.get(field, default)
    if not isinstance(value, int):
        raise ValueError(f"its field {field} is no integer")
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it has an integer where a text or message belongs")
    return value
