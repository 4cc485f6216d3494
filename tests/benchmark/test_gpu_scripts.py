"""The arithmetic of measurements/gpu_*.py with made-up numbers, and their driver with a tiny model on this machine."""

import argparse
import json

import pytest
import torch

import adapter_traffic
import adapters
import gpu_points
import gpu_serving
import quantised
import ship_choices
import start
from gpu_points import SHAPES, Points, Shape
from gpu_table import Step, floor_ms, steps, tables
from text_generation_benchmark.client import WarmupLimits
from text_generation_server.distributed.group import SingleRank
from text_generation_server.kernels.matmul.config import CUBLAS
from text_generation_server.kernels.matmul.picks import PickFile
from text_generation_server.models.loading import ModelOptions, load_model

TINY = Shape(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=300, max_position_embeddings=256,
)  # fmt: skip


def figures(engine, shape="llama-2-7b", step_ms=5.0, prefill_ms=8.0):
    return {
        "engine": engine,
        "shape": shape,
        "start_s": 12.3,
        "warmup_s": 4.5,
        "prefill": {"1x10": {"min_ms": prefill_ms, "median_ms": prefill_ms + 1}},
        "decode": {"1x10": {"step_ms": step_ms}, "8x512": {"step_ms": 2 * step_ms}},
    }


def options(*arguments):
    parser = argparse.ArgumentParser()
    gpu_points.add_options(parser)
    return parser.parse_args(["llama-3-8b", "--out", "found.json", *arguments])


def test_weights_of_few_bits_are_measured_in_every_form(capsys):
    quantised.main(["--shape", "tiny", "--rows", "1", "--parts", "steps"])
    (*_, table) = capsys.readouterr().out.split("\n\n")
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["form", *quantised.FORMS]


def test_bytes_of_the_known_shapes():
    assert SHAPES["llama-2-7b"].weight_bytes == pytest.approx(13.215e9, rel=1e-3)
    assert SHAPES["llama-3-8b"].weight_bytes == pytest.approx(15.010e9, rel=1e-3)
    assert SHAPES["qwen3-30b-a3b"].weight_bytes == pytest.approx(2 * (30.53e9 - 151936 * 2048), rel=1e-3)
    assert SHAPES["mixtral-8x7b-16-layers"].read_bytes(1) == pytest.approx(
        2 * (0.131e9 + 16 * (0.0419e9 + 2 * 0.1762e9)), rel=1e-3
    )
    assert SHAPES["llama-2-7b"].cache_bytes == 32 * 2 * 4096 * 2
    assert SHAPES["llama-3-8b"].cache_bytes == 32 * 2 * 1024 * 2


def test_the_floor_is_weights_and_the_cache_in_the_middle_of_a_run():
    shape = SHAPES["llama-2-7b"]
    assert floor_ms(shape, 0, 10) == pytest.approx(shape.weight_bytes / 3.02e9)
    assert floor_ms(shape, 4, 512) - floor_ms(shape, 0, 512) == pytest.approx(4 * (512 + 72) * 524288 / 3.02e9)


@pytest.mark.parametrize(
    ("peer", "floor", "met"),
    [(5.5, 1.0, True), (5.4, 1.0, False), (5.0, 4.7, True), (5.4, 4.5, False), (None, 4.7, True), (None, 4.5, None)],
)
def test_the_aim_is_the_lower_of_both_bars(peer, floor, met):
    assert Step(batch=1, prompt=10, ours=5.0, peer=peer, floor=floor).met is met


def test_points_that_the_peer_lacks_stand_alone():
    [first, second] = steps(
        SHAPES["llama-2-7b"], {"1x10": {"step_ms": 5.0}, "2x10": {"step_ms": 5.0}}, {"2x10": {"step_ms": 6.0}}
    )
    assert (first.peer, first.ratio, first.batch) == (None, None, 1)
    assert (second.ratio, second.batch, second.prompt) == (pytest.approx(1.2), 2, 10)


def test_tables_say_what_is_met():
    lines = tables(figures("kv.run"), figures("vLLM 1", step_ms=6.0, prefill_ms=7.0)).splitlines()
    assert lines[0] == "llama-2-7b: ready 12.3 s after its start, warm 4.5 s later."
    assert "| 10 | 1 | 200 | 5.000 | 6.000 | 1.20 | 4.390 | 0.88 | yes |" in lines
    assert "| 512 | 8 | 800 | 10.000 | 12.000 | 1.20 | 5.187 | 0.52 | yes |" in lines
    assert "| 1x10 | 8.0 (9.0) | 7.0 (8.0) | 0.88 | no |" in lines


def test_tables_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="figures of llama-2-7b and of llama-3-8b"):
        tables(figures("kv.run"), figures("vLLM", shape="llama-3-8b"))


def test_steps_are_the_difference_of_two_lengths():
    asked = []

    def generate(batch, prompt, new_tokens):
        asked.append((batch, prompt, new_tokens))
        return 0.5 + 0.002 * new_tokens

    prefill, *decode = gpu_points.sweep(Points((1, 4), (10,), ((1, 2048),)), generate)
    assert prefill[:2] == ("prefill", "1x2048")
    assert prefill[2]["min_ms"] == pytest.approx(502)
    assert [(kind, point) for kind, point, _ in decode] == [("decode", "1x10"), ("decode", "4x10")]
    assert [figures["step_ms"] for _, _, figures in decode] == pytest.approx([2, 2])
    assert asked[:6] == [(1, 2048, 1)] * 6
    assert [new_tokens for batch, _, new_tokens in asked if batch == 4] == [16, 16, 16, 128, 128]


def test_a_run_cut_short_leaves_what_it_had(tmp_path):
    def generate(batch, prompt, new_tokens):
        if batch == 4:
            raise MemoryError
        return new_tokens

    with pytest.raises(MemoryError):
        gpu_points.record(tmp_path / "new" / "found.json", {"engine": "x"}, Points((1, 4), (10,), ()), generate)
    found = json.loads((tmp_path / "new" / "found.json").read_text())
    assert (found["engine"], list(found["decode"])) == ("x", ["1x10"])


def test_points_are_chosen_by_options():
    assert Points.chosen(options()) == Points()
    assert len(Points().batches) * len(Points().prompts) == 16
    quick = Points.chosen(options("--quick", "--batches", "2,3"))
    assert (quick.batches, quick.prompts, len(quick.prefills)) == ((2, 3), (10,), 3)
    assert Points.chosen(options("--prompts", "512")).prompts == (512,)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_server_is_started_driven_and_stopped(tmp_path, monkeypatch, shards):
    for name, value in {
        "CUDA_MEMORY_FRACTION": "0.01",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    points = Points(batches=(3,), prompts=(40,), prefills=((1, 10), (3, 40)))
    out = tmp_path / "found.json"
    limits, about = WarmupLimits(100, 99, 200), {"engine": "kv.run"}
    gpu_serving.measure(TINY, points, limits, ["--logger-level", "DEBUG"], out, about, shards)
    found = json.loads(out.read_text())
    assert list(found["prefill"]) == ["1x10", "3x40"]
    assert list(found["decode"]) == ["3x40"]
    assert found["shard"]["dtype"] == "torch.bfloat16"
    assert found["fitting_tokens"] >= 200
    assert out.with_suffix(".log").read_text().count(" Loaded ") == shards


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)ended with code 2.*--no-such-option"):
        gpu_serving.measure(
            TINY, Points(), WarmupLimits(100, 99, 200), ["--no-such-option"], tmp_path / "found.json", {}
        )


def test_tables_are_printed_from_files(tmp_path, capsys):
    for name in ("ours", "peer"):
        (tmp_path / name).write_text(json.dumps(figures(name)))
    gpu_serving.main(["table", str(tmp_path / "ours"), str(tmp_path / "peer")])
    assert "| peer ms |" in capsys.readouterr().out


def test_adapters_are_measured_by_mixture(tmp_path, capsys):
    out = tmp_path / "found.json"
    points = ["--batches", "1", "3", "--distinct", "0", "2", "--ranks", "4", "--steps", "14", "--prefill", "2", "16"]
    adapters.main(["--shape", "tiny", "--device", "cpu", *points, "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [(one["kind"], one["batch"], one["rank"], one["distinct"]) for one in figures] == [
        ("prefill", 2, 0, 0), ("decode", 1, 0, 0), ("decode", 3, 0, 0),
        ("prefill", 2, 4, 0), ("decode", 1, 4, 0), ("decode", 3, 4, 0),
        ("prefill", 2, 4, 2), ("decode", 3, 4, 2),
    ]  # fmt: skip
    assert all(one["device_ms"] > 0 for one in figures)
    assert "| decode | 3 | 4 | 2 |" in capsys.readouterr().out


def test_traffic_of_more_adapters_than_places_loses_no_request(tmp_path, capsys):
    out = tmp_path / "found.json"
    sizes = ["--adapters", "12", "--places", "2", "--kept", "4", "--requests", "30", "--clients", "3", "--new", "2"]
    adapter_traffic.main([*sizes, "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["lost"], found["distinct"] > 4) == (0, True)
    assert sum(found[where]["share"] for where in ("device", "host", "disk")) == pytest.approx(1)
    assert "30 requests" in capsys.readouterr().out


def test_weights_that_a_start_is_measured_with_can_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "random_block", lambda: bytes(1 << 12))
    TINY.write(tmp_path)
    start.write_weights(TINY, tmp_path)
    options = ModelOptions(torch.bfloat16, torch.device("cpu"))
    assert load_model(tmp_path, options, SingleRank(), lambda _done, _total: None).vocab_size == TINY.vocab_size
    assert start.plain_read(start.weights(str(tmp_path)))[0] == (tmp_path / "model.safetensors").stat().st_size


def test_a_start_s_phases_are_those_of_the_launcher_s_log():
    line = json.dumps({"fields": {"message": "Loaded", "phase": "loaded", "seconds": 1.5}})
    events = [{"at": 2.0, **start.parsed(line)}]
    assert start.parsed("no JSON") == {}
    told = start.table("a start", {"events": events, "waits": [0.004, 0.090, 0.005], "read": (0, 0.0)})
    assert "| 2.00 | loaded | 1.50 | Loaded |" in told and "3 tokens: 5.0 ms each, at the longest 90, 5, 4 ms" in told


def test_choices_for_plain_weights_are_shipped_by_card(tmp_path):
    shape = "8 rows by 28672x4096 silu"
    kept, shipped = tmp_path / "kernels.json", tmp_path / "shipped.json"
    for triton in ("3.5", "3.6"):
        PickFile(kept, f"A card, torch 2, triton {triton}").add({f"{shape} bfloat16": CUBLAS})
    PickFile(kept, "B card, torch 2").add({f"{shape} int4 in 128 bfloat16": CUBLAS})
    ship_choices.main([str(kept), "--shipped", str(shipped)])
    assert json.loads(shipped.read_text()).keys() == {"A card", "B card"}
    assert PickFile(shipped, "A card").read() == {f"{shape} bfloat16": CUBLAS}
    assert PickFile(shipped, "B card").read() == {}
