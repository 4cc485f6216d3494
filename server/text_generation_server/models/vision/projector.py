"""From a tower's features to the decoder's width. Knows neither specs nor checkpoints."""

from torch import Tensor

from text_generation_server.models.decoder import DenseMlp
from text_generation_server.models.vision.tower import TOKENS


class PatchProjector:
    """Each patch by itself."""

    def __init__(self, mlp: DenseMlp) -> None:
        self._mlp = mlp

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, n, hidden]."""
        return self._mlp(features.flatten(0, 1), TOKENS).view(*features.shape[:2], -1)
