"""A token of each row by temperature, top-k, top-p and a random number, or the best one. Knows no plans or requests.

Twin: `Warped` of `sampling/methods.py`. It chooses the same tokens but for the rounding of probabilities: these kernels
weigh tokens before they are normalised, and their exponentials end in other bits.
"""

import torch
from torch import Tensor

from text_generation_server.kernels.sampling.best import survey
from text_generation_server.kernels.sampling.cut import TALLY, cut
from text_generation_server.kernels.sampling.draw import draw


def choose_token(
    logits: Tensor,
    uniforms: Tensor,
    drawn: Tensor,
    temperatures: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    cuts: bool,
    deep: bool,
) -> tuple[Tensor, Tensor]:
    """Choose by logits [S, vocab] of any float dtype, rows contiguous.

    Args:
        logits: left unchanged.
        uniforms: [S] fp32 in [0, 1).
        drawn: [S] int32, 0 where the best token is wanted and all else about the row ignored.
        temperatures: [S] fp32, above 0.
        top_k: [S] int32, at least 1; the size of the vocabulary where it is off.
        top_p: [S] fp64, above 0; 1 where it is off.
        cuts: whether any row has a top-k or top-p.
        deep: whether any of these has no small top-k.

    Returns:
        ids [S] int64 and their log-probabilities [S] fp32 among the tokens that are kept.
    """
    if not cuts:
        return draw(logits, survey(logits), drawn, temperatures, None, uniforms)
    tallies = torch.empty(len(logits), TALLY, dtype=torch.int64, device=logits.device)
    found = survey(logits, cleared=tallies)
    thresholds = cut(logits, found, tallies, temperatures, top_k, top_p, deep)
    return draw(logits, found, drawn, temperatures, thresholds, uniforms)
