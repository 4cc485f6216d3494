"""Plain weights on their way to a kernel: cut, padded and joined as views, copied once, packed or not."""

import pytest
import torch
from safetensors.torch import save_file

from text_generation_server.quantization import dense
from text_generation_server.quantization.dense import DenseMatrix, DenseScheme
from text_generation_server.quantization.staging import Staging
from text_generation_server.weights.checkpoint import SavedCheckpoint

CPU = torch.device("cpu")


@pytest.fixture(params=["packed", "plain"])
def kernels(request, monkeypatch):
    """Kernels of processors with and without a packed form."""
    if request.param == "plain":
        monkeypatch.setattr(dense, "can_pack", lambda _dtype, _device: False)


def weights_of(kernel, inputs):
    """What a kernel multiplies with [out, in]."""
    return kernel(torch.eye(inputs)).T


def checkpoint(directory, dtype):
    """Two matrices of whole numbers."""
    tensors = {
        "a.weight": torch.arange(96.0).view(12, 8).to(dtype),
        "b.weight": -torch.arange(32.0).view(4, 8).to(dtype),
    }
    save_file(tensors, directory / "model.safetensors")
    return SavedCheckpoint(directory), tensors["a.weight"].float(), tensors["b.weight"].float()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_matrices_of_one_scheme_are_cut_joined_and_converted_apart(tmp_path, stored):
    files, a, b = checkpoint(tmp_path, stored)
    scheme = DenseScheme(torch.float32, CPU)
    first, second = scheme.read(files, "a", (12, 8), False), scheme.read(files, "b", (8, 4), True).transpose()
    joined = first.select_out(slice(2, 6)).join_out([second, first.select_out(torch.tensor([11, 0]))])
    whole = torch.cat((a[2:6], b, a[[11, 0]]))
    finished = [
        (joined.finish(None), whole),
        (joined.select_in(slice(3, 7)).finish(None), whole[:, 3:7]),
        (joined.join_in([joined.select_in(slice(3, 7))]).finish(None), torch.cat([whole, whole[:, 3:7]], 1)),
        (joined.select_out(slice(3, 5)).finish(None), torch.stack((a[5], b[0]))),
        (joined.pad(11, 9).finish(None), torch.nn.functional.pad(whole, (0, 1, 0, 1))),
        (joined.transpose().finish(None), whole.T),
        (first.finish(None), a),
    ]
    for kernel, expected in finished:
        assert torch.equal(weights_of(kernel, expected.shape[1]), expected)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (64, 64), (3, 5)])
def test_a_kernel_keeps_nothing_of_what_it_was_made_from(shape):
    source = torch.arange(float(shape[0] * shape[1])).view(shape)
    matrix = DenseMatrix(source, torch.float32, CPU)
    alone, joined = matrix.finish(None), matrix.join_out([matrix]).finish(None)
    expected = source.clone()
    source.zero_()
    matrix.join_out([matrix]).finish(None)  # in the memory where the other was put together
    assert torch.equal(weights_of(alone, shape[1]), expected)
    assert torch.equal(weights_of(joined, shape[1]), torch.cat((expected, expected)))


def test_staging_lends_what_nobody_has_and_takes_it_back():
    staging = Staging()
    with staging.lend((4, 4), torch.float32) as first, staging.lend((2, 2), torch.bfloat16) as second:
        assert (first.shape, first.dtype, second.shape, second.dtype) == ((4, 4), torch.float32, (2, 2), torch.bfloat16)
        assert first.data_ptr() != second.data_ptr()
        pointers = {first.data_ptr(), second.data_ptr()}
    with staging.lend((2,), torch.bfloat16) as third:
        assert third.data_ptr() in pointers
    with staging.lend((100,), torch.float32) as larger:
        assert larger.fill_(1).sum() == 100
