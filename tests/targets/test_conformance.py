"""Every runtime that is installed passes the suite that the package ships."""

import importlib.util

import pytest
import torch

from featherweight import registry
from featherweight.targets.base import Target
from featherweight.testing import check_target
from tests import toy


@pytest.mark.parametrize("runtime", registry.names("targets"))
@pytest.mark.parametrize("threads", [1, 2])
def test_target(runtime, threads):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    torch.manual_seed(0)
    check_target(Target(runtime, threads=threads), toy.residual().eval(), {"image": torch.randn(1, 1, 8, 8)})
