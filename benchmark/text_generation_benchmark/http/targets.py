"""A server's address, and the kind of endpoint that it names. Knows no connections."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.endpoints import ENDPOINTS, Endpoint

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. base: the path before the endpoint's, empty for most servers."""

    url: str
    host: str
    port: int
    tls: bool
    base: str
    endpoint: Endpoint

    @classmethod
    def parse(cls, url: str) -> Self:
        """`http://host:port` and a path that ends like an endpoint's, or none. Raises BenchmarkError."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise BenchmarkError(f"{url!r} is not a server's address; expected one like http://127.0.0.1:3000")
        path = parts.path.rstrip("/") or ENDPOINTS[0].path
        endpoint = next((one for one in ENDPOINTS if path.endswith(one.path)), None)
        if endpoint is None:
            known = ", ".join(one.path for one in ENDPOINTS)
            raise BenchmarkError(
                f"{parts.path!r} of {url} is no endpoint that can be measured; expected one of {known}"
            )
        base = path.removesuffix(endpoint.path)
        host, port, tls = parts.hostname, _port(parts), parts.scheme == "https"
        return cls(f"{parts.scheme}://{parts.netloc}{path}", host, port, tls, base, endpoint)

    @property
    def path(self) -> str:
        """What is asked of the server."""
        return self.base + self.endpoint.path

    @property
    def host_header(self) -> str:
        """As HTTP wants it: IPv6 in brackets, the port always."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise BenchmarkError(f"{parts.netloc!r} has no port that can be used: {error}") from error
