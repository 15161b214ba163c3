"""A task that no file names, on its way to the workers."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.engine.carried import carried, loaded
from featherweight.errors import InputError
from featherweight.task.accept import task_of

N = 400
X = np.random.default_rng(0).normal(size=(N, 64)).astype(np.float32)
Y = np.arange(N) % 4


class Net(nn.Module):
    """With a weight that two layers share, and one that is a view."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 256), nn.Linear(64, 256), nn.Linear(256, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(torch.relu(self.a(x) + self.b(x)))


def test_a_task_comes_back_as_it_was():
    task = task_of(Net(), (X, Y))
    with carried(task) as reference:
        folder = Path(reference["carried"])
        again = loaded(folder)
        assert again.fingerprint == task.fingerprint
        one, other = task.build(), again.build()
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
        assert other.b.weight is other.a.weight
        assert np.array_equal(again.splits().valid.all_targets(), task.splits().valid.all_targets())
        large = [p.stat().st_size for p in folder.glob("*.bin")]
        assert len(large) == 2 and sum(large) >= X.nbytes + 64 * 256 * 4
        assert (folder / "task.pickle").stat().st_size < X.nbytes  # the large arrays are not in it
    assert not folder.exists()


def test_what_a_process_changes_is_its_own():
    task = task_of(Net(), (X, Y))
    with carried(task) as reference:
        folder = Path(reference["carried"])
        first, second = loaded(folder), loaded(folder)
        first.model.module.a.weight.data.zero_()
        assert torch.equal(second.build().a.weight, task.build().a.weight)


def test_files_that_are_mapped_already_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", X)
    task = task_of(Net(), (np.load(tmp_path / "x.npy", mmap_mode="r"), Y))
    with carried(task) as reference:
        folder = Path(reference["carried"])
        assert sum(p.stat().st_size for p in folder.glob("*.bin")) < X.nbytes
        inputs, _ = loaded(folder).splits().train.batch(np.arange(3))
        assert np.array_equal(inputs["x"], task.splits().train.batch(np.arange(3))[0]["x"])


def test_a_reference_stays_one():
    task = task_of(Net(), (X, Y))
    task.ref = {"file": "t.py", "name": "task"}
    with carried(task) as reference:
        assert reference == task.ref


def test_what_cannot_be_sent_says_so():
    class Stubborn(Net):
        def __reduce_ex__(self, protocol):
            raise pickle.PicklingError("not me")

        def __deepcopy__(self, memo):
            return Net()

    with pytest.raises(InputError, match="cannot be sent to a worker"), carried(task_of(Stubborn(), (X, Y))):
        pass


SCRIPT = """
import numpy as np, torch
from torch import nn
import featherweight as fw
from nets import Wide                      # a module beside the script

class Net(nn.Module):                      # a class of the script itself
    def __init__(self):
        super().__init__()
        self.wide, self.out = Wide(), nn.Linear(16, 2)
    def forward(self, x):
        return self.out(self.wide(x))

torch.manual_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(300, 8)).astype("float32")
y = np.array(["down", "up"])[(x[:, 0] > 0).astype(int)]
prune = fw.Prune(ratio=fw.Choice(0.25, 0.5), criterion="magnitude")
study = fw.optimize(Net, (x, y), prune, baseline=fw.Train(epochs=3), max_drop="40pt", trials=2, workers=1,
                    measure_seconds=0.1, out="out", polish=0.0)
print(study.best is not None, study.front_json()["trials"]["complete"])
print(study.leaderboard().columns.tolist()[:3])
"""


@pytest.mark.slow
def test_a_script_with_classes_of_its_own(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nclass Wide(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Linear(8, 16), nn.ReLU())\n"
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True 2", "['label', 'trial', 'target']"], run.stdout
    assert "searching" in run.stderr and "Next: " in run.stderr and "Warning" not in run.stderr
    found = fw.Study.open(tmp_path / "out")
    assert found.info()["splits"]["class_names"] == ["down", "up"]
