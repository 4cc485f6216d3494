"""Runs a command that the kernel kills when the process that asked for it dies, however that happens. Linux only.

A script, run as `python -I -S tether.py PARENT COMMAND...`; it becomes the command. Asking for the signal in a process
of our own, before exec, needs no code between fork and exec of the launcher.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the parent's death, then run the command in this process's place."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before the request took effect.
        raise SystemExit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise SystemExit(f"{command[0]}: {error.strerror}") from None


if __name__ == "__main__":
    main()
