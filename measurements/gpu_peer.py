"""vLLM's offline engine at the points of gpu_serving.py, where it is installed; writes JSON for its tables.

CUDA graphs, asynchronous scheduling and everything else as vLLM chooses; no prefix caching, since each run would find
the last one's prompts, and no text, since only tokens are wanted.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_points
from gpu_points import MAX_PREFILL_TOKENS, MAX_TOTAL_TOKENS, SEQUENCES, SHAPES, Points
from surroundings import set_defaults

MEMORY_FRACTION = 0.88


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    gpu_points.add_options(parser)
    options = parser.parse_args()
    set_defaults(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[options.shape].write(Path(folder))
        began = time.perf_counter()
        peer = Peer(Path(folder), SHAPES[options.shape].vocab_size)
        start_s = time.perf_counter() - began
        about = {"engine": peer.name, "shape": options.shape, "start_s": start_s}
        gpu_points.record(options.out, about, Points.chosen(options), peer.generate)


class Peer:
    """An engine with random weights, and random prompts for it."""

    def __init__(self, directory: Path, vocab_size: int) -> None:
        import vllm

        self.name = f"vLLM {vllm.__version__}"
        self._sampling: Any = vllm.SamplingParams
        self._tokens = random.Random(0)
        self._vocab_size = vocab_size
        self._engine = vllm.LLM(
            model=str(directory),
            load_format="dummy",
            dtype="bfloat16",
            skip_tokenizer_init=True,
            enable_prefix_caching=False,
            max_model_len=MAX_TOTAL_TOKENS,
            max_num_batched_tokens=MAX_PREFILL_TOKENS,
            max_num_seqs=SEQUENCES,
            gpu_memory_utilization=MEMORY_FRACTION,
            seed=0,
        )

    def generate(self, batch: int, prompt: int, new_tokens: int) -> float:
        """Seconds of one call, which generates all tokens of a batch."""
        prompts = [{"prompt_token_ids": self._prompt(prompt)} for _ in range(batch)]
        greedy = self._sampling(temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        outputs = self._engine.generate(prompts, greedy, use_tqdm=False)
        seconds = time.perf_counter() - began
        lengths = {len(output.outputs[0].token_ids) for output in outputs}
        if lengths != {new_tokens}:
            raise SystemExit(f"vLLM generated {sorted(lengths)} tokens a prompt, expected {new_tokens}")
        return seconds

    def _prompt(self, length: int) -> list[int]:
        return [self._tokens.randrange(3, self._vocab_size) for _ in range(length)]


if __name__ == "__main__":
    main()
