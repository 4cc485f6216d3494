"""`python -m text_generation_benchmark`. Knows nothing but the command."""

import sys

from text_generation_benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
