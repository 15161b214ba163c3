"""How many samples a model is followed and tried with."""

from torch import nn

from featherweight.transforms import base
from tests import toy


class Net(nn.Module):
    def __init__(self, looks):
        super().__init__()
        self.looks, self.head = looks, nn.Linear(64, 4)

    def forward(self, x):
        h = x.flatten(1)
        if self.looks == "if" and (h > 9).any():
            h = nn.functional.normalize(h)
        if self.looks == "write":
            h = h.clone()
            h[h[:, 0] > 9, :8] = 0
        return self.head(h)


def test_a_model_whose_code_looks_at_values_is_tried_with_many_rows(monkeypatch):
    context = toy.context()
    width = next(iter(context.calibration(1).values())).flatten(1).shape[1]

    def rows(looks, cheap=4e9):
        monkeypatch.setattr(base, "CHEAP", cheap)
        net = Net(looks)
        net.head = nn.Linear(width, 4)
        return len(context.few(net.eval())[0])

    per = 4.0 * width  # multiply-accumulates of one row
    assert rows("") == min(16, 8192 // width) and rows("", 3 * per) == 3 and rows("", per / 9) == 2
    assert rows("if") == rows("write") == min(64, len(context.splits.train))
    assert rows("if", per / 9) == rows("write", per / 9) == 16  # however costly
