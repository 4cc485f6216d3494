"""`python -m text_generation_router`: what the launcher runs. Knows nothing but the command."""

import sys

from text_generation_router.cli import main

if __name__ == "__main__":
    sys.exit(main())
