"""Adapters as PEFT saves them: what they change is read from both files, and whatever is not served is named."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from text_generation_server.adapters.matching import match
from text_generation_server.adapters.pairs import read_adapter
from text_generation_server.adapters.peft_config import read_peft_config
from text_generation_server.adapters.targets import Targets
from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel

SHAPES = {f"model.layers.{layer}.{name}": (6, 4) for layer in (0, 1) for name in ("self_attn.qkv_proj", "mlp.up_proj")}
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["qkv_proj"]}
QKV = [name for name in SHAPES if "qkv" in name]


@pytest.fixture
def saved(tmp_path):
    """Save an adapter: its configuration, and pairs for these modules or tensors by their names."""

    def save(config=PLAIN, modules=QKV, rank=2, **tensors):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        for module in modules:
            tensors[f"base_model.model.{module}.lora_A.weight"] = torch.ones(rank, 4)
            tensors[f"base_model.model.{module}.lora_B.weight"] = torch.ones(6, rank)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return save


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({"target_modules": ["qkv_proj", "mlp.up_proj"]}, [*SHAPES]),
        ({"target_modules": "all-linear"}, [*SHAPES]),
        ({"target_modules": r".*\.1\.\w+\.(qkv|up)_proj"}, [name for name in SHAPES if ".1." in name]),
        ({"target_modules": ["proj"]}, []),
        ({"layers_to_transform": 1}, QKV[1:]),
        ({"layers_to_transform": [0, 7], "layers_pattern": "layers"}, QKV[:1]),
        ({"layers_to_transform": [0], "layers_pattern": ["blocks"]}, []),
        ({"target_modules": "all-linear", "exclude_modules": ["up_proj"]}, QKV),
    ],
)
def test_modules_are_chosen_as_peft_does(saved, config, changed):
    adapter = read_peft_config(saved(PLAIN | config))
    assert [name for name in SHAPES if adapter.targets(name)] == changed


def test_ranks_and_strengths_may_differ_by_module(saved):
    patterns = {"rank_pattern": {r"1\.self_attn\.\w+": 16, "up_proj": 8}, "alpha_pattern": {"up_proj": 2.0}}
    config = read_peft_config(saved(PLAIN | patterns))
    assert [config.rank_of(name) for name in SHAPES] == [2, 8, 16, 8]
    assert [config.scale_of(name) for name in SHAPES] == [2.0, 0.25, 0.25, 0.25]
    by_root = read_peft_config(saved(PLAIN | {"use_rslora": True}))
    assert by_root.scale_of(QKV[0]) == 4 / math.sqrt(2)


def test_an_adapter_to_the_model_without_its_head_lacks_the_first_part_of_names(saved):
    short = [name.partition(".")[2] for name in QKV]
    assert [*match(read_adapter(saved(modules=short)), Targets(SHAPES))] == QKV


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"use_dora": True}, "use_dora is True, expected an adapter without it"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"bias": "lora_only"}, "bias is 'lora_only', expected 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "r is 0, expected a whole number"),
        ({"lora_alpha": None}, "lora_alpha is missing"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": "("}, "pattern"),
        ({"rank_pattern": {"(": 3}}, "pattern"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform is"),
    ],
)
def test_what_a_pair_cannot_express_is_refused_by_its_key(saved, changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        read_peft_config(saved(PLAIN | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"modules": ["model.layers.0.self_attn.q_proj"]}, r"changes q_proj of .*self_attn, .*\(those are qkv_proj\)"),
        ({"modules": ["model.layers.0.mlp.experts.3.up_proj"]}, "changes up_proj of .*: embeddings and"),
        ({"modules": ["model.embed_tokens"]}, "changes embed_tokens of model"),
        ({"modules": [*QKV, "model.layers.0.mlp.up_proj"]}, "up_proj, which target_modules of .* leave out"),
        ({"modules": QKV[:1]}, r"no matrices for model.layers.1.self_attn.qkv_proj, which target_modules of .* name"),
        ({"rank": 3}, r"shapes \[3, 4\] and \[6, 3\], which are not of rank 2"),
        ({"modules": []}, "holds no tensors"),
        ({"base_model.model.lm_head.weight": torch.ones(3)}, "lm_head.weight, which is not served"),
        ({"base_model.model.x.lora_embedding_A": torch.ones(3)}, "lora_embedding_A, which is not served"),
        ({"base_model.model.x.lora_A.weight": torch.ones(2, 4)}, "lora_A of x alone"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(saved, changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        match(read_adapter(saved(**changes)), Targets(SHAPES))


def test_an_adapter_to_another_model_is_refused_with_both_shapes(saved):
    adapter = read_adapter(saved())
    with pytest.raises(UnsupportedModel, match=r"shapes \[2, 4\] and \[6, 2\], which do not fit the model's \[6, 5\]"):
        match(adapter, Targets(dict.fromkeys(SHAPES, (6, 5))))


def test_missing_files_are_named(saved):
    directory = saved()
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"there is no .*adapter_model\.safetensors"):
        read_adapter(directory)
    (directory / "adapter_config.json").unlink()
    with pytest.raises(StartError, match=r"adapter_config\.json"):
        read_adapter(directory)


def test_a_pickle_of_tensors_is_read_and_no_other(saved):
    directory = saved()
    safetensors, pickled = directory / "adapter_model.safetensors", directory / "adapter_model.bin"
    expected = read_adapter(directory).halves
    tensors = load_file(safetensors)
    safetensors.unlink()
    torch.save(tensors, pickled)
    got = read_adapter(directory).halves
    assert got.keys() == expected.keys()
    assert all(ours.equal(theirs) for name in got for ours, theirs in zip(got[name], expected[name], strict=True))
    torch.save({"base_model.model.x.lora_A.weight": print}, pickled)
    with pytest.raises(UnsupportedModel, match="code inside a pickle is never run"):
        read_adapter(directory)


GATES = [[f"layers.0.mlp.experts.{expert}.{name}_proj" for name in ("gate", "up")] for expert in range(3)]
DOWNS = [[f"layers.0.mlp.experts.{expert}.down_proj"] for expert in range(3)]
EXPERTS = Targets(
    {name: (6, 4) for names in GATES for name in names} | {name: (4, 6) for (name,) in DOWNS} | {"router": (3, 4)},
    {"layers.0.mlp.gate": "router"},
    {"layers.0.mlp.experts.gate_up_proj": GATES, "layers.0.mlp.experts.down_proj": DOWNS},
)
"""Three experts of inner size 6 and their router, which files may call otherwise."""
FUSED = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_parameters": ["mlp.experts.gate_up_proj", "gate.weight"]}
IN_FILE = "base_model.model.layers.0.mlp.experts"


@pytest.mark.parametrize("swapped", [False, True], ids=["as now", "inputs and outputs swapped"])
def test_pairs_to_all_experts_at_once_are_those_of_each(saved, swapped):
    # Rank 2 of three experts: 4 inputs, 12 outputs.
    pair = (torch.randn(6, 12), torch.randn(4, 6)) if swapped else (torch.randn(6, 4), torch.randn(12, 6))
    router = {
        f"base_model.model.layers.0.mlp.gate.lora_{side}.weight": torch.ones(*size)
        for side, size in (("A", (2, 4)), ("B", (3, 2)))
    }
    halves = {f"{IN_FILE}.base_layer.lora_{side}.weight": half for side, half in zip("AB", pair, strict=True)}
    found = match(read_adapter(saved(FUSED, [], **halves, **router)), EXPERTS)
    assert {*found} == {name for names in GATES for name in names} | {"router"}
    firsts, lasts = pair[0].view(3, 2, -1), pair[1].view(-1, 2, 3)
    for expert, (gate, other) in enumerate(GATES):
        whole = lasts[:, :, expert] @ firsts[expert]
        ours = torch.cat([found[name].up @ found[name].down for name in (gate, other)])
        torch.testing.assert_close(ours, whole.T if swapped else whole)


def test_all_experts_of_a_projection_are_demanded_once_one_is_there(saved):
    config = FUSED | {"target_parameters": None, "target_modules": ["gate_proj", "down_proj"]}
    gates = {}
    for expert in range(3):
        gates[f"{IN_FILE}.{expert}.gate_proj.lora_A.weight"] = torch.ones(2, 4)
        gates[f"{IN_FILE}.{expert}.gate_proj.lora_B.weight"] = torch.ones(6, 2)
    assert len(match(read_adapter(saved(config, [], **gates)), EXPERTS)) == 3
    for side in "AB":
        del gates[f"{IN_FILE}.1.gate_proj.lora_{side}.weight"]
    with pytest.raises(UnsupportedModel, match=r"no matrices for layers\.0\.mlp\.experts\.1\.gate_proj"):
        match(read_adapter(saved(config, [], **gates)), EXPERTS)


def test_pairs_to_experts_that_fit_none_are_refused(saved):
    halves = {f"{IN_FILE}.lora_A.weight": torch.ones(6, 5), f"{IN_FILE}.lora_B.weight": torch.ones(12, 6)}
    with pytest.raises(UnsupportedModel, match=r"shapes \[6, 5\] and \[12, 6\], which fit none of .*gate_up_proj"):
        match(read_adapter(saved(FUSED, [], **halves)), EXPERTS)
    down = {f"{IN_FILE}.lora_A.weight": torch.ones(6, 6), f"{IN_FILE}.lora_B.weight": torch.ones(4, 6)}
    with pytest.raises(UnsupportedModel, match=r"gate_up_proj, which target_parameters of .* name"):
        match(read_adapter(saved(FUSED, [], **down)), EXPERTS)
