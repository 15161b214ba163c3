"""A worker's processes: itself and all that it has started, wherever they have gone since."""

from __future__ import annotations

import contextlib
import ctypes
import signal

import psutil

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of those of its descendants whose own parents end, so that none
    of them leaves its family (Linux; elsewhere detached ones do)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Family:
    """Those that were seen of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[int, psutil.Process] = {}

    def used_bytes(self) -> int:
        """Resident memory of all that live now; 0 if the first of them has ended."""
        try:
            first = psutil.Process(self._pid)
            found = [first, *first.children(recursive=True)]
        except psutil.Error:
            return 0
        used = 0
        for p in found:
            self._seen.setdefault(p.pid, p)
            with contextlib.suppress(psutil.Error):
                used += p.memory_info().rss
        return used

    def end(self) -> None:
        """Kill all that were ever seen and still live."""
        self.used_bytes()
        for p in self._seen.values():
            with contextlib.suppress(psutil.Error):  # it has ended; one that has its number since is another
                if p.is_running():
                    p.kill()


def said(signal_number: int) -> str:
    """`SIGKILL`, or `signal 41` of one without a name."""
    try:
        return signal.Signals(signal_number).name
    except ValueError:
        return f"signal {signal_number}"
