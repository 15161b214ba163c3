"""What a trial may change of its whole process, put back after it: the trials after it in the same
worker have to see what they would see in a new one."""

from __future__ import annotations

import builtins
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


@contextmanager
def kept_state(threads: int) -> Iterator[None]:
    """Inside, anything may happen to the process's defaults; after it they are as before: torch's
    types, devices, modes and threads, NumPy's errors, Python's built-in names, the environment,
    folder, path, limits and signal handlers."""
    names = dict(vars(builtins))
    folder, path, environment = os.getcwd(), list(sys.path), dict(os.environ)
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    device, errors, depth = torch.get_default_device(), np.geterr(), sys.getrecursionlimit()
    handlers = {s: signal.getsignal(s) for s in _SIGNALS}
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        vars(builtins).update(names)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in handlers.items():
            if handler is not None:
                signal.signal(s, handler)
        os.environ.clear()
        os.environ.update(environment)
        with suppress(OSError):  # it was removed
            os.chdir(folder)
        sys.path[:] = path
        sys.setrecursionlimit(depth)
        np.seterr(**errors)
        torch.set_default_dtype(dtype)
        torch.set_default_device(device if device.type != "cpu" else None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
