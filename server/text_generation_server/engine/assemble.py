"""Puts an engine together from a loaded model: the only place that knows which parts belong to which rank."""

from functools import partial
from threading import Thread

from text_generation_server.adapters.loading import NO_ADAPTERS, StartedAdapters
from text_generation_server.adapters.reader import Answer, ReadAdapter, answer_reading
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.distributed.plans import PlanReceiver, PlanSender, plan_socket
from text_generation_server.distributed.questions import Asker, answer, question_socket
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.plan import RankCommand
from text_generation_server.engine.ranks import LeadingRunner
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.models.step import ServedModel
from text_generation_server.tokenization.adapter import Tokenizer


def build_engine(
    model: ServedModel,
    tokenizer: Tokenizer,
    group: TensorParallel,
    settings: EngineSettings,
    uds_path: str,
    adapters: StartedAdapters = NO_ADAPTERS,
) -> Engine:
    """Rank 0's engine; waits for the followers to connect when there are any."""
    own = _runner(model, group, adapters)
    if group.world_size == 1:
        return Engine(own, tokenizer, settings, adapters.registry(own))
    followers = group.world_size - 1
    runner = LeadingRunner(own, PlanSender[RankCommand](plan_socket(uds_path), followers))
    asker = Asker[ReadAdapter, Answer](question_socket(uds_path), followers)
    return Engine(runner, tokenizer, settings, adapters.registry(runner, asker.ask))


def build_follower(
    model: ServedModel, group: TensorParallel, uds_path: str, adapters: StartedAdapters = NO_ADAPTERS
) -> tuple[Runner, PlanReceiver[RankCommand]]:
    """A follower's runner and where its plans come from, for `ranks.follow`; a thread of its own reads adapters."""
    plans = PlanReceiver[RankCommand](plan_socket(uds_path))
    reads = partial(answer_reading, adapters.own)
    Thread(target=answer, args=(question_socket(uds_path), reads), name="adapters", daemon=True).start()
    return _runner(model, group, adapters), plans


def _runner(model: ServedModel, group: TensorParallel, adapters: StartedAdapters) -> Runner:
    device = model.device
    recorder = CudaRecorder if device.type == "cuda" else None
    return Runner(model, group, make_stream(device), recorder, adapters.own)
