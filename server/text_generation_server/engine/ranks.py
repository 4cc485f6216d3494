"""Several ranks as one: rank 0 sends what it is about to run, the others run it. Nothing is decided twice."""

from text_generation_server.device.stream import Pending
from text_generation_server.distributed.plans import PlanReceiver, PlanSender
from text_generation_server.engine.choosing import SamplingInput
from text_generation_server.engine.launched_step import StepOutput
from text_generation_server.engine.plan import (
    AllocateCache,
    DropAdapter,
    Fitting,
    MeasureMemory,
    PutAdapter,
    RankCommand,
    RecordMore,
    ReserveAdapters,
    StepPlan,
)
from text_generation_server.engine.runner import Runner
from text_generation_server.sampling.sampler import TokenCounts


class LeadingRunner:
    """Rank 0's runner: every command goes to the followers first, then to the own device."""

    def __init__(self, runner: Runner, followers: PlanSender[RankCommand]) -> None:
        self._runner = runner
        self._followers = followers

    @property
    def counts(self) -> TokenCounts:
        """The token counts of rows with penalties."""
        return self._runner.counts

    @property
    def vocab_size(self) -> int:
        """Logits a row."""
        return self._runner.vocab_size

    @property
    def bytes_per_slot(self) -> int:
        """Cache bytes of one token on rank 0."""
        return self._runner.bytes_per_slot

    @property
    def bytes_per_row(self) -> int:
        """Cache bytes of one sequence on rank 0, whatever its length."""
        return self._runner.bytes_per_row

    def allocate(self, command: AllocateCache) -> Pending[None]:
        """Replace every rank's cache and rows."""
        self._followers.send(command)
        return self._runner.allocate(command)

    def fitting(self, command: MeasureMemory) -> Pending[Fitting]:
        """Rows and slots that fit on every rank."""
        self._followers.send(command)
        return self._runner.fitting(command)

    def record_more(self) -> Pending[bool]:
        """Record a size on every rank; whether any is left."""
        self._followers.send(RecordMore())
        return self._runner.record_more()

    def launch(self, plan: StepPlan, sampling: SamplingInput | None) -> Pending[StepOutput]:
        """Run one step on every rank; only rank 0 samples."""
        self._followers.send(plan)
        return self._runner.launch(plan, sampling)

    def reserve_adapters(self) -> None:
        """Make the places on every rank. Raises NotEnoughMemory."""
        if not self._runner.has_places:
            self._followers.send(ReserveAdapters())
            self._runner.reserve_adapters()

    def put_adapter(self, key: int, place: int) -> Pending[None]:
        """Let an adapter be at a place on every rank."""
        self._followers.send(PutAdapter(key, place))
        return self._runner.put_adapter(key, place)

    def drop_adapter(self, key: int) -> Pending[None]:
        """Forget an adapter in every rank's host memory."""
        self._followers.send(DropAdapter(key))
        return self._runner.drop_adapter(key)

    def close(self) -> None:
        """End the followers, then the own stream."""
        self._followers.close()
        self._runner.close()


def follow(runner: Runner, plans: PlanReceiver[RankCommand]) -> None:
    """The engine of a follower: run what rank 0 sends until it closes.

    Raises:
        ModelError: a step failed here; the group is lost.
    """
    previous: Pending[object] | None = None
    while (command := plans.receive()) is not None:
        # Looking at the last command's outcome costs no wait that the stream would not have, and a failure is noticed.
        launched = _execute(runner, command)
        if previous is not None:
            previous.result()
        previous = launched
    runner.close()


def _execute(runner: Runner, command: RankCommand) -> Pending[object]:
    match command:
        case StepPlan():
            return runner.launch(command, None)
        case AllocateCache():
            return runner.allocate(command)
        case MeasureMemory():
            return runner.fitting(command)
        case RecordMore():
            return runner.record_more()
        case ReserveAdapters():
            return runner.reserving()
        case PutAdapter():
            return runner.put_adapter(command.key, command.place)
        case DropAdapter():
            return runner.drop_adapter(command.key)
