"""Puts choices of matrix kernels that a server measured and kept among those that come with the package.

`python measurements/ship_choices.py ~/.cache/kvrun/kernels.json` after a start on an idle GPU. Of the 16-bit weights of
Llama-3-8B and such: forms of few bits change too often to be worth it. What is shipped is tried once, not measured, on
cards of the same name. See docs/benchmarks.md#start.
"""

import argparse
import json
from pathlib import Path

from text_generation_server.kernels.matmul.picks import PickFile
from text_generation_server.quantization.tuning import SHIPPED
from text_generation_server.specs.activation import Activation


def main(arguments: list[str] | None = None) -> None:
    """Merge the files named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, nargs="+")
    parser.add_argument("--shipped", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    for path in options.kept:
        for machine in json.loads(path.read_text()):
            card, *_ = machine.split(", ")
            choices = {case: choice for case, choice in PickFile(path, machine).read().items() if is_plain(case)}
            PickFile(options.shipped, card).add(choices)
            print(f"{card}: {len(choices)} choices")


def is_plain(case: str) -> bool:
    """Whether a case's weights are of 16 bits: between their shape and their type there is at most an activation.

    >>> is_plain("8 rows by 28672x4096 silu bfloat16"), is_plain("8 rows by 4096x4096 int4 in 128 bfloat16")
    (True, False)
    """
    return set(case.split()[4:-1]) <= set(Activation)


if __name__ == "__main__":
    main()
