"""The ports and socket paths of one launch: its own from before anything is loaded until its last child has ended.

Whatever another process has is refused by name, or replaced where nobody asked for it: so a second launch on a host
needs another --port and nothing else. Starts nothing.
"""

import errno
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from text_generation_launcher.context import LaunchContext
from text_generation_launcher.errors import LaunchError
from text_generation_router.options import flag
from text_generation_server.reservations.holders import Taken
from text_generation_server.reservations.ports import PortReservation, reserve_port
from text_generation_server.reservations.sockets import Unusable, reserve_socket

_EVERY_ADDRESS = "0.0.0.0"


class Places:
    """What was reserved. A context: at its end all is given back, and what killed shards have left is removed.

    socket_prefix: of the shards' sockets, absolute. metrics_port: 0 for none. master_port: where the ranks meet.
    reasons: a sentence for each place that is not the one of the options.
    """

    def __init__(self, launch: LaunchContext, num_shard: int, fixed_metrics_port: int | None = None) -> None:
        """Reserve all that `num_shard` ranks and a router need. Raises LaunchError, and keeps nothing then.

        fixed_metrics_port: what the router opens for metrics while it starts, whatever it is told.
        """
        options, self.reasons = launch.options, list[str]()
        with ExitStack() as held:
            self._of_router = [held.enter_context(_reserve_option("port", options.hostname, options.port))]
            self._of_start: list[PortReservation] = []
            self._of_shards: list[PortReservation] = []
            self.metrics_port, self.master_port = options.prometheus_port, options.master_port
            if fixed_metrics_port is not None:
                self._reserve_fixed(fixed_metrics_port, held)
            elif options.prometheus_port not in (0, options.port):
                self.metrics_port = self._reserve_metrics(launch, held)
            if num_shard > 1:
                self.master_port = self._reserve_master(launch, held)
            self.socket_prefix = self._reserve_sockets(launch, num_shard, held)
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def socket_path(self, rank: int) -> str:
        """Where a rank answers (docs/launcher.md#places)."""
        return f"{self.socket_prefix}-{rank}"

    def admit_shards(self) -> None:
        """Let the shards, which start now, meet at their port."""
        for place in self._of_shards:
            place.share()

    def admit_router(self) -> None:
        """Let the router, which starts now, listen at its ports."""
        for place in self._of_router:
            place.share()

    def router_has_started(self) -> None:
        """Let others have what a router needs only while it starts."""
        for place in self._of_start:
            place.close()

    def _reserve_fixed(self, port: int, held: ExitStack) -> None:
        if port == self._of_router[0].port:
            return  # opened and closed again before the router listens there
        advice = "this router opens it for metrics and has no option for another; end that, or take another --router"
        self._of_start.append(held.enter_context(_reserve_port(_EVERY_ADDRESS, port, advice)))
        self._of_router += self._of_start

    def _reserve_metrics(self, launch: LaunchContext, held: ExitStack) -> int:
        options = launch.options
        try:
            place = held.enter_context(_reserve_option("prometheus_port", options.hostname, options.prometheus_port))
        except LaunchError as error:
            self._give_way(launch, "prometheus_port", error, "metrics are only on the main port")
            return 0
        self._of_router.append(place)
        return place.port

    def _reserve_master(self, launch: LaunchContext, held: ExitStack) -> int:
        # Rank 0 is always on this host, and listens at every address, whatever --master-addr calls it.
        try:
            place = held.enter_context(_reserve_option("master_port", _EVERY_ADDRESS, launch.options.master_port))
        except LaunchError as error:
            self._give_way(launch, "master_port", error, "the shards meet at a free one")
            place = held.enter_context(_reserve_option("master_port", _EVERY_ADDRESS, 0))
        self._of_shards.append(place)
        return place.port

    def _reserve_sockets(self, launch: LaunchContext, num_shard: int, held: ExitStack) -> str:
        prefix = str(Path(launch.options.shard_uds_path).absolute())
        try:
            held.enter_context(_reserve_ranks(prefix, num_shard))
        except LaunchError as error:
            own = f"{prefix}-{launch.options.port}"
            self._give_way(launch, "shard_uds_path", error, f"the shards answer at {own}")
            held.enter_context(_reserve_ranks(own, num_shard))
            return own
        return prefix

    def _give_way(self, launch: LaunchContext, option: str, error: LaunchError, instead: str) -> None:
        """A default that another process has is no reason not to start; what somebody asked for is."""
        if option in launch.given:
            raise error
        self.reasons.append(f"{instead}: {error}")


def _reserve_option(option: str, address: str, port: int) -> PortReservation:
    return _reserve_port(address, port, f"give a free one with {flag(option)}")


def _reserve_port(address: str, port: int, advice: str) -> PortReservation:
    try:
        return reserve_port(address, port)
    except Taken as error:
        raise LaunchError(f"{error}; {advice}") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise LaunchError(f"{address} is no address of this host; give one with --hostname") from None
        raise LaunchError(f"port {port} on {address} cannot be had ({error}); {advice}") from None


def _reserve_ranks(prefix: str, num_shard: int) -> ExitStack:
    with ExitStack() as held:
        try:
            for rank in range(num_shard):
                held.enter_context(reserve_socket(Path(f"{prefix}-{rank}")))
        except Taken as error:
            raise LaunchError(f"{error}; stop it or give another --shard-uds-path") from None
        except Unusable as error:
            raise LaunchError(f"{error}; give another --shard-uds-path") from None
        return held.pop_all()
