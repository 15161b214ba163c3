"""What steps share that change what a model is given: does it take that, and if not, which of its
layers does not?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def problem(before: nn.Module, after: nn.Module, inputs: tuple[Tensor, ...]) -> str | None:
    """Why `after`, which changes what it is given, does not do for `before`: the layer in which it
    fails, and how, or what becomes of its output. None if it does."""
    import torch

    from ...models.hooks import watched

    running: list[str] = []

    def enter(path: str, *_: Any) -> None:
        running.append(path)

    def leave(*_: Any) -> None:
        running.pop()

    every = [path for path, m in after.named_modules() if not isinstance(m, torch.jit.ScriptModule)]
    with torch.no_grad():
        want = before(*inputs)
        try:
            with watched(after, dict.fromkeys(every, leave), before={path: partial(enter, path) for path in every}):
                got = after(*inputs)
        except Exception as e:  # whatever the model's own code raises
            path = running[-1] if running else ""
            kind = type(after.get_submodule(path)).__name__
            where = f"the layer {path!r} ({kind})" if path else f"the model's own code ({kind})"
            return f"{where} fails: {(str(e).splitlines() or [type(e).__name__])[0]}"
    if got.shape != want.shape:
        return f"its output would be {list(got.shape)}, and is {list(want.shape)}"
    if not bool(got.isfinite().all()) and bool(want.isfinite().all()):
        return "its output would not be finite"
    return None


def described(names: list[str], inputs: tuple[Tensor, ...]) -> str:
    """What inputs are, in words of an error."""
    return ", ".join(
        f"{name}: {x.dtype}{list(x.shape)}".replace("torch.", "") for name, x in zip(names, inputs, strict=True)
    )
