"""The gRPC server of one rank: both protocol versions, reflection and health checking on one private Unix socket.

A threaded server: a call waits in its own thread for the engine's, which costs less a step than handing it through an
event loop. Knows nothing of what the calls do.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb_adapters
from text_generation_protocol.kvrun_v1 import adapters_pb2_grpc as grpc_adapters
from text_generation_protocol.kvrun_v1 import steps_pb2 as pb_steps
from text_generation_protocol.kvrun_v1 import steps_pb2_grpc as grpc_steps
from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v2 import generate_pb2_grpc as grpc_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_protocol.v3 import generate_pb2_grpc as grpc_v3
from text_generation_server.errors import StartError
from text_generation_server.rpc.adapters import AdapterService
from text_generation_server.rpc.interceptors import ErrorInterceptor
from text_generation_server.rpc.service import StatusService
from text_generation_server.rpc.sockets import make_way, private_files, socket_url
from text_generation_server.rpc.steps import StepsService
from text_generation_server.rpc.tracing import TraceInterceptor
from text_generation_server.tracing import Tracing

CALL_THREADS = 32
"""Calls at once. A router has one or two in the engine and a health check at times; a reflection client holds one."""

SERVICE = "TextGenerationService"
SERVICE_NAMES = tuple(pb.DESCRIPTOR.services_by_name[SERVICE].full_name for pb in (pb_v2, pb_v3))
ADAPTERS = pb_adapters.DESCRIPTOR.services_by_name["Adapters"].full_name
STEPS = pb_steps.DESCRIPTOR.services_by_name["Steps"].full_name

LARGEST_MESSAGE = 2**31 - 1


class ShardServer:
    """Serves `v2` and `v3` at `path`, and on rank 0 `adapters` and `steps`.

    on_fatal: called after an error that the process must not outlive. tracing: of calls, if a collector is asked for.
    """

    def __init__(
        self,
        path: Path,
        v2: StatusService,
        v3: StatusService,
        on_fatal: Callable[[], None],
        tracing: Tracing | None = None,
        adapters: AdapterService | None = None,
        steps: StepsService | None = None,
    ) -> None:
        self.path = path
        self._bound: os.stat_result | None = None
        self._health = health.HealthServicer()
        interceptors: list[Any] = [] if tracing is None else [TraceInterceptor(tracing)]
        interceptors.append(ErrorInterceptor(on_fatal))
        self._server = grpc.server(
            ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="rpc"),
            interceptors=interceptors,
            options=[("grpc.max_receive_message_length", LARGEST_MESSAGE), ("grpc.max_send_message_length", -1)],
        )
        grpc_v2.add_TextGenerationServiceServicer_to_server(v2, self._server)
        grpc_v3.add_TextGenerationServiceServicer_to_server(v3, self._server)
        names = list(SERVICE_NAMES)
        if adapters is not None:
            grpc_adapters.add_AdaptersServicer_to_server(adapters, self._server)
            names.append(ADAPTERS)
        if steps is not None:
            grpc_steps.add_StepsServicer_to_server(steps, self._server)
            names.append(STEPS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    def start(self) -> None:
        """Serve and open the socket: from here on the file's existence says that the shard is ready.

        Raises:
            StartError: the socket cannot be opened; SocketInUse if another server has it.
        """
        make_way(self.path)
        # gRPC removes whatever is at its path before and after; of its own name for the socket only this server knows.
        private = self.path.with_name(f"{self.path.name}~")
        for name in ("", *SERVICE_NAMES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            with private_files():
                self._server.add_insecure_port(socket_url(private))
            self._server.start()
            self._bound = private.stat()
            private.rename(self.path)
        except (RuntimeError, OSError) as error:
            raise StartError(f"cannot listen on {self.path}: {error}") from error

    def stop(self, grace_s: float) -> None:
        """Take no more calls, give those running `grace_s` seconds, and remove the socket if it is this server's."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()
        with suppress(FileNotFoundError):
            if self._bound is not None and os.path.samestat(self._bound, self.path.stat()):
                self.path.unlink()
