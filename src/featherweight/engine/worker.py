"""A worker process: takes jobs as JSON over a pipe, runs them,
sends back progress and what became of them.

Started as `python -m featherweight.engine.worker FD`. A program of its own, not a fork or a
re-import of the user's script, so a worker has no threads or locks of the parent in an unknown
state, and a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..errors import FeatherweightError, TaskError
from ..recipe import Recipe
from ..store.artifacts import ArtifactStore
from ..task.imports import guarded
from ..task.load import load_task
from ..train.checkpoint import Paused
from .carried import loaded as carried
from .family import adopt_orphans
from .jobs import run
from .kept import kept_state
from .messages import READY, Message, Setup
from .runner import Runner
from .screen import OverLimits


def die_with_parent(parent: int) -> None:
    """End this process soon after its parent has gone, whatever it is doing:
    nothing may go on after a killed run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_runner(setup: Setup, store_root: Path, report: Any, ask: Any = None) -> Runner:
    """TaskError if the task is not the one that the study began with."""
    reference = setup.task
    # a task that no file names travels by value, from our own parent only
    if "carried" in reference:
        task = carried(Path(reference["carried"]))
    else:
        guarded()  # all of the user's modules that this process will have are seen as they are loaded
        task = load_task(reference)
    if setup.fingerprint and task.fingerprint != setup.fingerprint:
        raise TaskError(
            "the task's code or data changed while the search was running",
            got=task.name,
            fix="put it back and resume, or start a new study with another --out",
        )
    baseline = Recipe.from_json(setup.baseline) if setup.baseline else None
    return Runner(task, ArtifactStore(store_root), setup.seed, setup.device, report, baseline, ask)


def serve(connection: Connection) -> None:
    """Answer jobs until the pipe closes. The first message is the set-up."""
    setup = Setup.from_json(json.loads(connection.recv_bytes()))
    torch.set_num_threads(setup.threads)

    def send(message: Message) -> None:
        connection.send_bytes(json.dumps(message.to_json()).encode())

    def report(progress: dict[str, Any]) -> None:
        send(Message(kind="progress", facts=progress))

    def ask(epoch: float, of: int, score: float) -> bool:
        """Tell a score; wait for "go" (True) or "pause"."""
        send(Message(kind="report", epoch=epoch, of=of, score=score))
        return bool(json.loads(connection.recv_bytes())["answer"] == "go")

    runner: Runner | None = None
    while True:
        try:
            job = json.loads(connection.recv_bytes())
        except EOFError:
            return
        scratch = None if setup.reuse else Path(tempfile.mkdtemp(prefix="featherweight-store-"))
        try:
            if runner is None or scratch is not None:
                runner = make_runner(setup, scratch or Path(setup.store), report, ask)
                report({"step": READY})
            with kept_state(setup.threads):
                result = run(runner, job)
            send(Message(kind="finished", result=result))
        except Paused as e:
            send(Message(kind="paused", epoch=e.epoch))
        except OverLimits as e:
            send(Message(kind="failed", reason=str(e), error="OverLimits", over=e.over, violation=e.violation))
        except TaskError as e:  # the user's code: nobody knows in which state it left the process
            send(Message(kind="failed", reason=str(e), error=type(e).__name__, facts={"leaving": True}))
            return
        except FeatherweightError as e:
            send(Message(kind="failed", reason=str(e), error=type(e).__name__))
        except MemoryError:
            send(Message(kind="failed", reason="out of memory", error="MemoryError"))
        except Exception as e:
            traceback.print_exc()
            last = traceback.extract_tb(e.__traceback__)[-1]
            said = f"{type(e).__name__}: {str(e)[:100_000]} ({Path(last.filename).name}:{last.lineno})"
            send(Message(kind="failed", reason=said, error=type(e).__name__, facts={"leaving": True}))
            return
        finally:
            if scratch is not None:
                runner = None
                shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    adopt_orphans()
    die_with_parent(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
