"""One launch from the first check to the last process's end, and its exit code (docs/launcher.md#readiness-and-end).

Whatever ends it (a signal, a child's death, an error of ours), the router ends first, then the shards, and no process
and no socket stays. Does not know how any child is started.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from text_generation_launcher.child import Child, spawn
from text_generation_launcher.console import Console
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.download import Downloaded, download
from text_generation_launcher.embedded_python import EmbeddedPython
from text_generation_launcher.environments import router_environment
from text_generation_launcher.errors import LaunchError
from text_generation_launcher.modelfacts import ModelFacts, read_facts
from text_generation_launcher.places import Places
from text_generation_launcher.resolve import ResolvedArgs, check_limits, resolve, resolve_num_shard
from text_generation_launcher.router import RouterProgram, choose_router, router_command, wait_until_healthy
from text_generation_launcher.shards import spawn_shard, wait_until_accepting
from text_generation_launcher.signals import StopSignals
from text_generation_launcher.startup import StartUp

_ROUTERS_LAST_WORDS_S = 5
"""Ours ends by itself when the grace is over, and tells those whose requests still run."""


async def supervise(launch: LaunchContext, console: Console) -> int:
    """Run the launch until something ends it: 0 after a signal, 1 after anything else."""
    with StopSignals() as signals:
        return await _Supervisor(launch, console).run(signals)


class _Supervisor:
    def __init__(self, launch: LaunchContext, console: Console) -> None:
        self._launch = launch
        self._console = console
        self._start_up = StartUp(console)
        self._shards: list[Child] = []
        self._routers: list[Child] = []
        self._python: EmbeddedPython | None = None
        self._kept = ExitStack()
        self._first_death: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._watchers: list[asyncio.Task[None]] = []

    async def run(self, signals: StopSignals) -> int:
        signalled, work = signals.next(), asyncio.create_task(self._serve())
        try:
            waited_for: set[asyncio.Future[Any]] = {signalled, work, self._first_death}
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            await asyncio.wait({work})
            return self._exit_code(signalled, work)
        finally:
            hurry = signals.next() if signalled.done() else signalled
            await self._end_all(hurry)
            hurry.cancel()

    async def _serve(self) -> None:
        num_shard, program, places = self._check()
        model = await download(self._launch, self._start_up)
        self._start_up.downloaded(model.path, model.bytes)
        resolved = self._resolve(num_shard, program, model)
        self._start_shards(places, resolved, model)
        # Ours reads its own files meanwhile; others end where no shard answers yet.
        router = self._start_router(program, places, resolved, model) if self._launch.embedded_router else None
        await self._loaded(places, resolved.num_shard)
        await self._healthy(router or self._start_router(program, places, resolved, model), places)
        await asyncio.wait({self._first_death})

    def _check(self) -> tuple[int, RouterProgram, Places]:
        check_limits(self._launch.options)
        num_shard, why = resolve_num_shard(self._launch.options, self._launch.environment, self._launch.hardware)
        self._console.info(why)
        program = choose_router(self._launch)
        self._python = program.python
        places = self._kept.enter_context(Places(self._launch, num_shard, program.fixed_metrics_port))
        for reason in places.reasons:
            self._console.info(reason)
        return num_shard, program, places

    def _resolve(self, num_shard: int, program: RouterProgram, model: Downloaded) -> ResolvedArgs:
        facts = read_facts(Path(model.path)) if model.path else ModelFacts()
        launch, numeric = self._launch, program.needs_numeric_limits
        resolved = resolve(
            launch.options, launch.environment, launch.hardware, facts, num_shard, numeric_limits=numeric
        )
        for reason in resolved.reasons:
            self._console.info(reason)
        return resolved

    def _start_shards(self, places: Places, resolved: ResolvedArgs, model: Downloaded) -> None:
        self._start_up.begin()
        places.admit_shards()
        for rank in range(resolved.num_shard):
            shard = spawn_shard(self._launch, places, resolved, model, rank, self._start_up)
            self._shards.append(shard)
            self._watch(shard)

    async def _loaded(self, places: Places, num_shard: int) -> None:
        for rank, shard in enumerate(self._shards):
            await wait_until_accepting(places.socket_path(rank), shard, self._notice(f"waiting for shard {rank}"))
        self._start_up.loaded(num_shard)
        self._start_up.begin()

    def _start_router(self, program: RouterProgram, places: Places, resolved: ResolvedArgs, model: Downloaded) -> Child:
        places.admit_router()
        router = spawn(
            "router",
            router_command(self._launch, program, places, resolved, model),
            router_environment(self._launch, resolved, self._python),
            python=self._launch.programs.python,
            stdout=self._start_up.stdout_of_router if self._launch.embedded_router else self._console.raw,
            stderr=self._start_up.stderr_of("router"),
            folder=self._router_folder(),
        )
        self._routers.append(router)
        self._watch(router)
        return router

    async def _healthy(self, router: Child, places: Places) -> None:
        url = await wait_until_healthy(self._launch, router, self._notice("waiting for the router"))
        places.router_has_started()
        if advice := self._advice(router):
            self._console.warn(advice)
        self._start_up.ready(url)

    def _router_folder(self) -> Path | None:
        """Others write into their folder, where two must not meet (docs/launcher.md#routers-of-other-makers)."""
        if self._launch.embedded_router:
            return None
        folder = TemporaryDirectory(prefix="text-generation-router-", ignore_cleanup_errors=True)
        return Path(self._kept.enter_context(folder))

    def _advice(self, child: Child) -> str | None:
        return self._python.advice(child.last_words) if self._python and child in self._routers else None

    def _notice(self, message: str) -> Callable[[], None]:
        return lambda: self._console.info(message)

    def _watch(self, child: Child) -> None:
        async def watch() -> None:
            await child.wait()
            if not self._first_death.done():
                self._first_death.set_result(child)

        self._watchers.append(asyncio.create_task(watch()))

    def _exit_code(self, signalled: "asyncio.Task[Any]", work: "asyncio.Task[None]") -> int:
        error = None if work.cancelled() else work.exception()
        if signalled.done():
            self._console.end_progress()
            self._console.info("stopping")
            return 0
        if self._first_death.done():
            child = self._first_death.result()
            end, advice = f"{child.describe_end()}; everything else is stopped", self._advice(child)
            self._console.failure(f"{end}. {advice}" if advice else end, child.last_lines)
            return 1
        if not isinstance(error, LaunchError):
            raise error or RuntimeError("the launch ended without a reason")
        self._console.failure(str(error), error.lines)
        return 1

    async def _end_all(self, hurry: "asyncio.Task[Any]") -> None:
        grace = self._launch.options.graceful_termination_timeout
        last_words = _ROUTERS_LAST_WORDS_S if self._launch.embedded_router else 0
        for children, seconds in ((self._routers, grace + last_words), (self._shards, grace)):
            await asyncio.gather(*(child.stop(seconds, hurry) for child in children))
        self._kept.close()
        await asyncio.gather(*self._watchers)
