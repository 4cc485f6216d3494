"""What URLs of clients may reach, and what is made of the answers."""

import asyncio
import ipaddress
import socket

import pytest

from mocks.file_server import answer, file_server
from text_generation_router.images.addresses import is_public
from text_generation_router.images.fetching import Fetcher, FetchRules
from text_generation_server.errors import BadImage

LOCAL = FetchRules(max_bytes=1000, timeout_s=5, private=True)
GUARDED = FetchRules(max_bytes=1000, timeout_s=5)


async def fetched(url: str, rules: FetchRules) -> tuple[bytes, str]:
    fetcher = Fetcher(rules)
    return await fetcher.fetch(url, fetcher.room())


HIDDEN = (
    "127.0.0.1 127.8.9.1 0.0.0.0 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 198.18.0.1 224.0.0.1 "
    "240.0.0.1 255.255.255.255 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 "
    "2002:7f00:1:: 2001::1 2001:db8::1 100::1"
)


@pytest.mark.parametrize("address", HIDDEN.split())
def test_addresses_that_are_not_anybodys(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://127.1/a.png",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/latest/meta-data",
        "http://localhost:{port}/a.png",
        "http://LOCALHOST.:{port}/a.png",
    ],
)
async def test_private_addresses_are_not_reached_however_they_are_written(url):
    async with file_server({"/a.png": answer(b"x")}) as server:
        with pytest.raises(BadImage, match=r"private network|no address"):
            await fetched(url.format(port=server.port), GUARDED)
        assert server.asked == []


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch):
    """A name that is public when it is checked, and private for whoever asks again."""
    answers = iter([[("1.1.1.1", 80)], [("127.0.0.1", 80)]])
    connected = []

    async def getaddrinfo(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in next(answers)]

    async def open_connection(host, port, **_):
        connected.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    with pytest.raises(BadImage, match="could not be fetched"):
        await fetched("http://rebinding.example/a.png", GUARDED)
    assert connected == ["1.1.1.1"]


async def test_one_private_address_of_several_is_enough_to_refuse(monkeypatch):
    async def getaddrinfo(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 80)) for host in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(BadImage, match="private network"):
        await fetched("http://both.example/", GUARDED)


async def test_redirects_are_checked_as_urls_are(monkeypatch):
    async with file_server({}) as server:
        server.files["/a.png"] = answer(status="302 Found", location="http://127.0.0.1:1/")

        async def resolved(host, port, private):
            if host == "public.example":
                return ["127.0.0.1"]
            raise BadImage("it is at an address of a private network")

        monkeypatch.setattr("text_generation_router.images.fetching.resolved", resolved)
        with pytest.raises(BadImage, match="private network"):
            await fetched(server.url("/a.png", "public.example"), GUARDED)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)
GOOD = {
    "/plain?size=large": answer(b"abcde"),
    "/chunked": CHUNKED,
    "/till-the-end": answer(b"abcde", content_length=None),
    "/hinted": b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + answer(b"abcde"),
    "/untold": answer(b"abcde", content_type="application/octet-stream"),
    "/moved": answer(status="301 Moved", location="/plain?size=large", content_type=None),
}


@pytest.mark.parametrize("path", GOOD)
async def test_what_is_fetched(path):
    async with file_server(GOOD) as server:
        data, kind = await fetched(server.url(path), LOCAL)
        assert data == b"abcde" and kind in ("image/png", "application/octet-stream")
        assert f"Host: 127.0.0.1:{server.port}" in server.asked[-1] and "Authorization" not in server.asked[-1]


BAD = {
    "/gone": (answer(status="404 Not Found"), "status 404"),
    "/page": (answer(b"<html>", content_type="text/html"), "no image"),
    "/packed": (answer(b"abc", content_encoding="gzip"), "no image"),
    "/told-too-long": (answer(b"abc", content_length=10**12), "it has 1000000000000 bytes, expected at most 1000"),
    "/too-long": (
        answer(b"a" * 1001, content_length=None),
        "it has too many bytes: the images at a request's URLs may have 1000 in all",
    ),
    "/cut-off": (answer(b"abc", content_length=5), "ends too early"),
    "/nothing": (b"", "ends too early"),
    "/no-http": (b"SSH-2.0-OpenSSH\r\n", "could not be fetched"),
    "/long-head": (answer(b"a", **{f"x_{i}": "a" * 5000 for i in range(40)}), "too long a head"),
    "/round": (answer(status="302 Found", location="/round"), "redirected more than 3 times"),
    "/nowhere": (answer(status="302 Found", location="file:///etc/passwd"), "neither data"),
}


@pytest.mark.parametrize("path", BAD)
async def test_what_is_refused(path):
    async with file_server({name: found for name, (found, _) in BAD.items()}) as server:
        with pytest.raises(BadImage, match=BAD[path][1]):
            await fetched(server.url(path), LOCAL)


async def test_the_files_of_a_request_are_bounded_together():
    async with file_server({"/a.png": answer(b"a" * 400)}) as server:
        fetcher = Fetcher(LOCAL)
        room = fetcher.room()
        assert len((await fetcher.fetch(server.url("/a.png"), room))[0]) == 400
        with pytest.raises(BadImage, match="may have 1000 in all"):
            await asyncio.gather(*(fetcher.fetch(server.url("/a.png"), room) for _ in range(2)))


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/b", "//host/a", "a.png", "http://", "http://user@host/", "http://h:99999/",
     "http://h/a b", "http://h/\r\nX: y", "http://" + "a" * 300 + "/"],
)  # fmt: skip
async def test_what_is_no_url_to_fetch(url):
    with pytest.raises(BadImage):
        await fetched(url, LOCAL)


async def test_it_may_take_only_so_long():
    async with file_server({}) as server:
        with pytest.raises(BadImage, match=r"did not come within 0\.1 s"):
            await fetched(server.url("/hangs"), FetchRules(1000, 0.1, True))
