"""Kernels run in Triton's interpreter where there is no CUDA device: the same code, on CPU tensors."""

import pytest
import torch


@pytest.fixture
def device():
    """Where kernels can be run on this machine."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
