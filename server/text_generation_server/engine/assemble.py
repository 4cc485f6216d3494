"""Puts an engine together from a loaded model: the only place that knows which parts belong to which rank."""

from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.distributed.plans import PlanReceiver, PlanSender, plan_socket
from text_generation_server.engine.engine import Engine, EngineSettings
from text_generation_server.engine.plan import RankCommand
from text_generation_server.engine.ranks import LeadingRunner
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.step_launcher import StepRunner
from text_generation_server.models.step import ServedModel
from text_generation_server.tokenization.adapter import Tokenizer


def build_engine(
    model: ServedModel, tokenizer: Tokenizer, group: TensorParallel, settings: EngineSettings, uds_path: str
) -> Engine:
    """Rank 0's engine; waits for the followers to connect when there are any."""
    own = _runner(model, group)
    runner: StepRunner = own
    if group.world_size > 1:
        runner = LeadingRunner(own, PlanSender[RankCommand](plan_socket(uds_path), group.world_size - 1))
    return Engine(runner, tokenizer, settings)


def build_follower(
    model: ServedModel, group: TensorParallel, uds_path: str
) -> tuple[Runner, PlanReceiver[RankCommand]]:
    """A follower's runner and where its plans come from, for `ranks.follow`."""
    return _runner(model, group), PlanReceiver[RankCommand](plan_socket(uds_path))


def _runner(model: ServedModel, group: TensorParallel) -> Runner:
    device = model.device
    return Runner(model, group, make_stream(device), CudaRecorder if device.type == "cuda" else None)
