"""What every pruning criterion has to do: score each weight or channel of any layer,
and ask for what it looks at.

Use it in the tests of a plug-in: `check_criterion(MyCriterion())`. It raises AssertionError with
what went wrong. Notation: as in `models.criteria.base`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..models.criteria.base import Criterion

LAYERS = (((6, 3, 2, 2), 2), ((6, 3, 2, 2), 1), ((5, 7), 1), ((1, 1), 1), ((4, 1, 3), 4))  # shape of the weight, G


def check_criterion(criterion: Criterion) -> None:
    """Run the whole suite (well under a second) on convolutions, with groups and without,
    and on Linear layers."""
    check_needs(criterion)
    for shape, groups in LAYERS:
        check_scores(criterion, shape, groups)
    check_zeros(criterion)


def check_scores(criterion: Criterion, shape: tuple[int, ...], groups: int) -> None:
    """Given what it `needs` and nothing else it scores: one number a weight or a channel, float32,
    finite, not negative, the same for the same generator; and what it was given stays as it was."""
    seen = {
        name: value for name, value in observed(shape, groups).items() if name == "weight" or name in criterion.needs
    }
    before = {name: value.clone() for name, value in seen.items()}
    scores = _checked(criterion, seen)
    assert all(_same(before[name], value) for name, value in seen.items()), "it changes what it was given"
    assert _same(scores, _checked(criterion, seen)), "another score for the same generator"


def check_zeros(criterion: Criterion) -> None:
    """Weights in half precision, and all of it zero: the score is a float32 number all the same."""
    import torch

    shape, groups = LAYERS[0]
    seen = {name: torch.zeros_like(v) for name, v in observed(shape, groups).items() if name in criterion.needs}
    _checked(criterion, {**seen, "weight": torch.zeros(shape, dtype=torch.float16)})


def check_needs(criterion: Criterion) -> None:
    """What it looks at besides the weight can be observed; without it the error names the layer."""
    from ..models.criteria.base import Seen

    shape, groups = LAYERS[0]
    known = set(observed(shape, groups)) - {"weight"}
    assert set(criterion.needs) <= known, (
        f"nothing observes {sorted(set(criterion.needs) - known)}; there is {', '.join(sorted(known))}"
    )
    if not criterion.needs:
        return
    try:
        criterion.score(Seen(observed(shape, groups)["weight"], name="some.layer"), _generator(0))
    except InputError as e:
        assert "some.layer" in str(e), f"without what it needs its error does not name the layer: {e}"
    else:
        raise AssertionError(f"it scores without {', '.join(sorted(criterion.needs))}, which it says that it needs")


def observed(shape: tuple[int, ...], groups: int) -> dict[str, Tensor]:
    """All that can be seen of a layer whose weight has this shape, made up:
    the fields of `Seen`."""
    n = math.prod(shape[1:])
    x = _normal(2, groups, 40, n)  # [G, rows, I * k]
    return {
        "weight": _normal(0, *shape),
        "norm": _normal(1, shape[0]).abs(),
        "gradient": _normal(3, 4, *shape),
        "input_norm": x.norm(dim=1),
        "hessian": x.transpose(1, 2) @ x / 40,
        "outputs": _normal(4, 30, shape[0]),  # activations may be negative, as of GELU or none
    }


def _checked(criterion: Criterion, seen: dict[str, Any]) -> Tensor:
    import torch

    from ..models.criteria.base import Seen

    shape = seen["weight"].shape
    scores = criterion.score(Seen(**seen), _generator(0))
    wanted = shape if criterion.per_weight else shape[:1]
    assert scores.shape == wanted, (
        f"scores {list(scores.shape)} of a weight {list(shape)}, where per_weight={criterion.per_weight}"
    )
    assert scores.dtype == torch.float32, f"scores are {scores.dtype}, not float32"
    assert bool(scores.isfinite().all()), "a score is not finite"
    assert bool((scores >= 0).all()), "a score is negative"
    return scores


def _normal(seed: int, *shape: int) -> Tensor:
    import torch

    return torch.randn(*shape, generator=_generator(seed))


def _generator(seed: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(seed)


def _same(a: Tensor, b: Tensor) -> bool:
    import torch

    return torch.equal(a, b)
