"""Reading safetensors: names, shards, broken files, and what must not be left over."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.weights.checkpoint import SavedCheckpoint
from text_generation_server.weights.tensorfile import TensorFile


def silent(_done, _total):
    """Progress that nobody watches."""


def checkpoint(directory, tensors, prefix="", progress=silent):
    """A checkpoint of one file."""
    save_file(tensors, directory / "model.safetensors")
    return SavedCheckpoint(directory, prefix, progress)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool])
def test_tensors_are_read_as_stored(tmp_path, dtype):
    tensors = {"odd": torch.ones(3).to(dtype), "matrix": (torch.randn(5, 7) * 9).to(dtype), "none": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    for name, expected in tensors.items():
        assert torch.equal(file.view(name), expected)


def test_a_view_outlives_its_file_and_never_changes_it(tmp_path):
    save_file({"a": torch.arange(4.0)}, tmp_path / "x.safetensors")
    before = (tmp_path / "x.safetensors").read_bytes()
    view = TensorFile(tmp_path / "x.safetensors").view("a")
    view += 1
    assert (tmp_path / "x.safetensors").read_bytes() == before
    (tmp_path / "x.safetensors").unlink()
    assert view.tolist() == [1.0, 2.0, 3.0, 4.0]


def resident(path):
    """Bytes of a file that this process has mapped and touched."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(int(next(x for x in lines if x.startswith("Rss:")).split()[1]) << 10 for y in lines if str(path) in y)


def test_a_part_is_read_alone_and_given_back_with_its_last_view(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(1 << 22, dtype=torch.float32).view(16, -1)}, path)
    part = TensorFile(path).view("a")[4:8]
    assert resident(path) == 0
    assert part[:, 0].tolist() == [rows * 2**18 for rows in range(4, 8)]
    assert 0 < resident(path) < 1 << 23
    assert part.sum(dtype=torch.float64) == sum(range(1 << 20, 1 << 21))
    assert 1 << 22 <= resident(path) < 1 << 23
    del part
    assert resident(path) == 0


def header_of(entry):
    """A file with one tensor's header and eight bytes of data."""
    header = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"no",
        struct.pack("<Q", 2) + b"[]",
        header_of({"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}),
        header_of({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}),
        header_of({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}),
        header_of({"dtype": "F32", "shape": [2]}),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UnsupportedModel, match=r"x\.safetensors is no complete safetensors file"):
        TensorFile(tmp_path / "x.safetensors")


def test_names_are_found_with_and_without_the_family_prefix(tmp_path):
    tensors = {"h.0.w": torch.zeros(1), "model.norm": torch.ones(1)}
    files = checkpoint(tmp_path, tensors, prefix="model.")
    assert files.view("model.h.0.w", (1,)).item() == 0
    assert files.view("model.norm", (1,)).item() == 1
    files.check_consumed()
    with pytest.raises(UnsupportedModel, match=r"no tensor model\.x and x"):
        files.view("model.x", (1,))


def test_a_shape_that_config_does_not_imply_is_refused(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"w has shape \[2, 3\], config\.json implies \[3, 2\]"):
        checkpoint(tmp_path, {"w": torch.zeros(2, 3)}).view("w", (3, 2))


def test_what_nobody_read_is_named(tmp_path):
    files = checkpoint(tmp_path, {"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1)})
    files.view("a", (1,))
    files.leave("c")
    with pytest.raises(UnsupportedModel, match=r"1 tensors that its config\.json does not account for \(b\)"):
        files.check_consumed()


DERIVED = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
    "model.rotary_emb_local.original_inv_freq": (4,),
    "model.layers.0.self_attn.rotary_emb.cos_cached": (1, 1, 4, 4),
    "model.layers.0.self_attn.rotary_emb.sin_cached": (4, 4),
    "transformer.rotary_pos_emb.inv_freq": (4,),
    "transformer.h.0.attn.rotary.scale": (4,),
    "rope.freqs": (4,),
    "freqs_cis": (4, 2),
    "h.0.attn.bias": (1, 1, 4, 4),
    "transformer.h.0.attn.bias": (4, 4),
    "model.layers.0.self_attn.bias": (1, 4, 4),
    "transformer.h.0.attn.causal_mask": (1, 1, 4, 4),
    "model.causal_mask": (4, 4),
    "model.future_mask": (2, 4, 4),
    "gpt_neox.layers.0.attention.masked_bias": (),
    "model.layers.0.self_attention.linear_qkv._extra_state": (9,),
    "model.layers.0.alibi": (4,),
    "model.embeddings.position_ids": (1, 4),
    "transformer.h.0.attn.embed_positions": (4, 4),
    "model.embed_positions._float_tensor": (1,),
    "decoder.version": (1,),
    "model.layers.0.mlp.total_ops": (1,),
}


@pytest.mark.parametrize("name", DERIVED)
def test_what_follows_from_the_config_needs_no_reader(tmp_path, name):
    checkpoint(tmp_path, {name: torch.zeros(DERIVED[name])}).check_consumed()


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.attn.bias",
        "layers.0.attention.dense.bias",
        "embed_positions.weight",
        "layers.0.rotary_attn.weight",
        "layers.0.rotary_attn.bias",
        "layers.0.attention.scale",
    ],
)
def test_what_looks_like_it_is_none(tmp_path, name):
    with pytest.raises(UnsupportedModel, match=re.escape(f"({name})")):
        checkpoint(tmp_path, {name: torch.zeros(4)}).check_consumed()


def file_of(directory, dtype, *names):
    """A file of tensors of two 32-bit numbers, whatever their type is said to be."""
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps(dict.fromkeys(names, entry)).encode()
    (directory / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return directory / "x.safetensors"


@pytest.mark.parametrize(
    ("dtype", "names", "reason"),
    [
        ("F4", ["w"], r"w has elements of type F4, which is not supported; expected one of F64, F32"),
        ("U32", ["w"], r"w has elements of type U32, which is not supported"),
        ("U32", ["up.biases", "up.scales", "up.weight"], "is quantised by MLX"),
        ("I32", ["up.qweight", "up.qzeros", "up.scales"], "is quantised by GPTQ or AWQ"),
        ("I32", ["up.weight", "up.weight.absmax"], "is quantised by bitsandbytes"),
        ("F32", ["up.weight", "up.weight_scale_inv"], "is quantised by a method of FP8"),
        ("I32", ["up.weight_packed"], "is quantised by compressed-tensors"),
        ("I32", ["experts.gate_up_proj_blocks", "experts.gate_up_proj_scales"], "is quantised by MXFP4"),
    ],
)
def test_a_form_that_is_not_read_is_no_damage(tmp_path, dtype, names, reason):
    with pytest.raises(UnsupportedModel, match=reason) as refused:
        TensorFile(file_of(tmp_path, dtype, *names))
    assert "again" not in str(refused.value)


@pytest.mark.parametrize("name", ["attn.biases", "attn.W_q", "vq.codes", "attn.qweight"])
def test_a_name_alone_is_no_sign(tmp_path, name):
    assert name in TensorFile(file_of(tmp_path, "F32", name)).tensors


def test_a_pointer_is_told_from_a_broken_file(tmp_path):
    (tmp_path / "x.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UnsupportedModel, match=r"x\.safetensors is a Git LFS pointer .*git lfs pull"):
        TensorFile(tmp_path / "x.safetensors")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UnsupportedModel, match=r"x\.safetensors cannot be read: Is a directory"):
        TensorFile(tmp_path / "x.safetensors")


def test_progress_ends_at_the_size_of_all_tensors(tmp_path):
    reports = []
    files = checkpoint(
        tmp_path, {"a": torch.zeros(10), "b": torch.zeros(5)}, progress=lambda *report: reports.append(report)
    )
    for name in ("a", "b", "b"):
        files.view(name, (10,) if name == "a" else (5,))
    assert reports == [(40, 60), (60, 60)]


def test_shards_are_found_by_their_index(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "two.safetensors")
    save_file({"stray": torch.ones(1)}, tmp_path / "consolidated.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    files = SavedCheckpoint(tmp_path, "", silent)
    assert [files.view(name, (1,)).item() for name in "ab"] == [0, 1]
    files.check_consumed()


def test_a_missing_shard_is_named(tmp_path):
    index = {"weight_map": {"a": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFound, match=r"no one\.safetensors, which model\.safetensors\.index\.json lists"):
        SavedCheckpoint(tmp_path, "", silent)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ModelNotFound, match="text-generation-server download-weights"):
        SavedCheckpoint(tmp_path, "", silent)


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(
        ModelNotFound, match=r"neither model\.safetensors nor model\.safetensors\.index\.json, no weights"
    ):
        SavedCheckpoint(tmp_path, "", silent)
