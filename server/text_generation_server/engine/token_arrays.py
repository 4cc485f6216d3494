"""What a step plan says about each token, as arrays for the device. Host only, no tensors."""

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from text_generation_server.engine.plan import StepPlan
from text_generation_server.models.step import NEWEST


def token_arrays(plan: StepPlan) -> NDArray[np.int64]:
    """[3, T]: each token or NEWEST, its position, its row."""
    spans = zip(plan.seq_lens, plan.query_lens, strict=True)
    return np.stack(
        (
            np.concatenate([np.asarray(prompt or (NEWEST,), dtype=np.int64) for prompt in plan.prompts]),
            np.concatenate([np.arange(end - tokens, end) for end, tokens in spans]),
            np.repeat(np.asarray(plan.rows, dtype=np.int64), plan.query_lens),
        )
    )


def logit_rows(plan: StepPlan) -> list[int]:
    """Indices into T: the last positions of each choosing row, then the scored positions of each scored row."""
    starts = [*accumulate(plan.query_lens, initial=0)]
    ends = [starts[i] + plan.query_lens[i] for i in plan.chooses]
    last = [at for end, drafted in zip(ends, plan.drafted, strict=True) for at in range(end - drafted - 1, end)]
    return last + [starts[i] + offset for i, count in plan.scored for offset in range(count)]
