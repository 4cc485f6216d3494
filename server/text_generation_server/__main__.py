"""`python -m text_generation_server`: the same as the installed command."""

from text_generation_server.cli import main

main()
