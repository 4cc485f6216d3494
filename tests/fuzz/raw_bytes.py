"""Bytes that may or may not be messages: noise, protobuf fields of any number and type, and damaged messages."""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_INVALID_TEXT = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\x80b"]


def raw_bytes(valid: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Noise, made-up fields, and what damage makes of `valid` messages."""
    return st.binary(max_size=200) | _fields() | st.builds(_damaged, valid, st.lists(_damages(), max_size=4)) | valid


def _fields() -> SearchStrategy[bytes]:
    """Fields of known and unknown numbers, of every wire type, one inside the other."""
    leaf = (
        st.builds(lambda number, value: _varint(number << 3) + _varint(value), _numbers(), st.integers(0, 2**70))
        | st.builds(lambda number, value: _varint(number << 3 | 1) + value, _numbers(), st.binary(max_size=8))
        | st.builds(lambda number, value: _varint(number << 3 | 5) + value, _numbers(), st.binary(max_size=4))
        | st.builds(lambda number, kind: _varint(number << 3 | kind), _numbers(), st.sampled_from([3, 4, 6, 7]))
        | st.builds(_delimited, _numbers(), st.binary(max_size=20) | st.sampled_from(_INVALID_TEXT), st.just(0))
    )
    nested = st.recursive(
        leaf,
        lambda inner: st.builds(
            _delimited, _numbers(), st.lists(inner, max_size=4).map(b"".join), st.sampled_from([0, 0, 0, 1, 2**31])
        ),
        max_leaves=12,
    )
    return st.lists(nested, max_size=5).map(b"".join)


def _numbers() -> SearchStrategy[int]:
    return st.integers(1, 15) | st.sampled_from([0, 16, 2**29 - 1, 2**29])


def _delimited(number: int, content: bytes, excess: int) -> bytes:
    """A field whose length is `excess` too long."""
    return _varint(number << 3 | 2) + _varint(len(content) + excess) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


Damage = Callable[[bytes], bytes]


def _damages() -> SearchStrategy[Damage]:
    """A byte changed, a part cut, repeated, or put in: places count in thousandths of the length."""
    places = st.integers(0, 1000)

    def change(place: int, value: int) -> Damage:
        return lambda content: _put(content, place, 1, bytes([value]))

    def cut(place: int, length: int) -> Damage:
        return lambda content: _put(content, place, length, b"")

    def repeat(place: int, times: int) -> Damage:
        return lambda content: _put(content, place, 0, content[: 64 * times])

    def insert(place: int, part: bytes) -> Damage:
        return lambda content: _put(content, place, 0, part)

    return (
        st.builds(change, places, st.integers(0, 255))
        | st.builds(cut, places, st.integers(1, 2000))
        | st.builds(repeat, places, st.integers(1, 4))
        | st.builds(insert, places, st.binary(max_size=8) | st.sampled_from(_INVALID_TEXT))
    )


def _put(content: bytes, place: int, removed: int, part: bytes) -> bytes:
    at = len(content) * place // 1000
    return content[:at] + part + content[at + removed :]


def _damaged(content: bytes, damages: list[Damage]) -> bytes:
    for damage in damages:
        content = damage(content)
    return content
