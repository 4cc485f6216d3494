"""Layers that attend to images, in an engine on a CUDA device whose steps are recorded."""

import pytest
import torch

from oracles.build import build
from oracles.served import answers, engine_of, requests_of
from oracles.table import CASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("name", ["mllama", "idefics"])
def test_recorded_steps_answer_as_transformers(name, tmp_path):
    case = next(case for case in CASES if case.name == name)
    reference = build(case, tmp_path)
    options = ModelOptions(torch.float32, torch.device("cuda"))
    model = load_model(tmp_path, options, SingleRank(), lambda _done, _total: None)
    assert model.records
    for graphs, chunk in ((), None), ((1, 2, 4), None), ((1, 2, 4), 3):
        with engine_of(model, graphs=graphs) as engine:
            found = answers(engine, requests_of(reference, chunk=chunk))
            assert found == dict(enumerate(reference.answers))
