"""Builds a directory once, whole or not at all, however many processes ask for it at a time. Knows no contents."""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, after `build` has filled it if it is not there yet.

    `build` works in a draft directory beside it, which is renamed when done. A second process waits for the first and
    then finds the result. A draft left by a process that was killed is removed by the next one that builds.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusively(target.with_name(f".{target.name}.lock")):
        if not target.is_dir():
            _remove_drafts(target)
            _build(target, build)
    return target


@contextmanager
def _exclusively(lock: Path) -> Iterator[None]:
    """Hold an advisory lock; the kernel frees it when the process ends, however it ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _draft_prefix(target: Path) -> str:
    return f".{target.name}.draft-"


def _remove_drafts(target: Path) -> None:
    """Under the lock no one else is building, so that every draft is a dead process's."""
    for draft in target.parent.glob(f"{_draft_prefix(target)}*"):
        shutil.rmtree(draft)


def _build(target: Path, build: Callable[[Path], None]) -> None:
    draft = Path(tempfile.mkdtemp(prefix=_draft_prefix(target), dir=target.parent))
    try:
        build(draft)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
