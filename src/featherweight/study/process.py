"""The process that a study runs in: alone in its folder, and interrupted in good order."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..store.places import opened


@dataclass
class Stop:
    """asked: was the run asked to finish with what there is?"""

    asked: bool = False


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, or say who does: two searches in one folder would
    overwrite each other."""
    with open(folder / ".lock", "a", opener=opened) as f:  # nothing of it is lost, whatever it is
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StoreError(
                "another search is running in this folder", got=str(folder), fix="wait for it, or use another --out"
            ) from e
        yield


def running(folder: Path) -> bool:
    """Does a process hold the folder's lock?"""
    try:
        with open(folder / ".lock", opener=opened) as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, StoreError):  # no lock, or a file system without them
        return False
    return False


@contextmanager
def interruptible(stop: Stop, warn: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C finishes cleanly with what there is; the second stops at once (what is
    finished stays in the log)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(signum: int, frame: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        warn("interrupted: finishing with what there is (once more to stop at once)")

    # a terminal that closes is an interrupt, too, unless the program was told to outlive it (nohup)
    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    before = {s: signal.signal(s, heard) for s in (signal.SIGINT, signal.SIGTERM, *hung_up)}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
