"""Answers and events from pieces of any size, and what is no answer."""

import pytest

from text_generation_benchmark.http.events import EventReader
from text_generation_benchmark.http.wire import NotHttp, Response

CHUNKED = b"HTTP/1.1 100 Continue\r\n\r\n" + (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nab\n\r\n2\r\n\r\n\r\n0\r\nA: b\r\n\r\n"
)
COUNTED = b"HTTP/1.1 422 No\r\ncontent-length: 5\r\nConnection: close\r\n\r\nab\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\nab\n\r\n"
STREAM = b': hello\n\ndata: {"a": 1}\n\n\n\nevent: x\r\ndata:{"b":\r\ndata: 2}\r\n\r\ndata: [DONE]\n\ndata: lost'


def read(raw, size):
    response = Response()
    body = b"".join(response.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    response.hang_up()
    return response, body


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("raw", "status", "reusable"), [(CHUNKED, 200, True), (COUNTED, 422, False), (UNTIL_CLOSED, 200, False)]
)
def test_a_body_is_the_same_whatever_pieces_it_comes_in(raw, status, reusable, size):
    response, body = read(raw, size)
    assert (response.status, response.complete, response.reusable, body) == (status, True, reusable, b"ab\n\r\n")


@pytest.mark.parametrize("raw", [CHUNKED, COUNTED])
def test_a_body_that_is_cut_is_not_complete(raw):
    assert not read(raw[:-1], 1000)[0].complete


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwhat\r\n", b"x" * 70000]
)
def test_what_is_no_http_is_called_that(raw):
    with pytest.raises(NotHttp):
        Response().feed(raw)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_are_the_same_whatever_pieces_they_come_in(size):
    reader = EventReader()
    found = [data for at in range(0, len(STREAM), size) for data in reader.feed(STREAM[at : at + size])]
    assert found == [b'{"a": 1}', b'{"b":\n2}', b"[DONE]"]
