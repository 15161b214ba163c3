"""Samples of different lengths: made one length where it is plain how, else refused with the way
out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from featherweight.errors import TaskError
from featherweight.study.fitting import check_fit
from featherweight.task.accept import task_of

N = 40
IDS = [list(range(1, 4 + i % 3)) for i in range(N)]
TAGS = [[v % 2 for v in row] for row in IDS]
NAMES = [["O", "B-A"][: len(row)] + ["O"] * (len(row) - 2) for row in IDS]
MASK = [[1] * len(row) for row in IDS]


def padded(rows, wide, fill):
    return np.array([row + [fill] * (wide - len(row)) for row in rows])


def tokens(classes=2):
    torch.manual_seed(0)
    return nn.Embedding(30, classes)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = tokens()

    def forward(self, input_ids, attention_mask):
        return self.embed(input_ids) * attention_mask[..., None]


def whole(task):
    """{inputs: targets} of all samples."""
    splits, out = task.splits(), {}
    for part in (splits.train, splits.valid, splits.test):
        x, y = part.batch(np.arange(len(part)))
        out |= {tuple(a.tolist()): b.tolist() for a, b in zip(next(iter(x.values())), y, strict=True)}
    return out


EXPECTED = dict(zip(map(tuple, padded(IDS, 5, 0).tolist()), padded(TAGS, 5, -100).tolist(), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        (IDS, TAGS),
        ([np.array(row) for row in IDS], [torch.tensor(row) for row in TAGS]),
        (np.array(IDS, dtype=object), tuple(map(tuple, TAGS))),
        ({"input_ids": IDS}, TAGS),
    ],
)
def test_lists_with_as_many_targets_are_filled_up(data):
    task = task_of(tokens(), data)
    check_fit(task)
    assert whole(task) == EXPECTED and any("filled up at the end" in note for note in task.notes)


def test_names_are_filled_up_with_none():
    assert set(map(tuple, whole(task_of(tokens(), (IDS, NAMES), classes=["O", "B-A"])).values())) == {
        (0, 1, 0, -100, -100),
        (0, 1, 0, 0, -100),
        (0, 1, 0, 0, 0),
    }


@pytest.mark.parametrize("inputs", [{"input_ids": IDS, "attention_mask": MASK}])
def test_columns_of_lists(inputs):
    task = task_of(Masked(), {**inputs, "labels": TAGS})
    check_fit(task)
    assert whole(task) == EXPECTED


def test_targets_beside_inputs_of_one_length_stand_where_the_mask_says():
    right = {"input_ids": padded(IDS, 7, 0), "attention_mask": padded(MASK, 7, 0), "labels": TAGS}
    assert [len(v) for v in whole(task_of(Masked(), right)).values()][0] == 7
    left = {name: v[:, ::-1] if name != "labels" else v for name, v in right.items()}
    with pytest.raises(TaskError, match="not filled up at their end"):
        task_of(Masked(), left)


def test_labels_of_frames_are_filled_up():
    x = np.random.default_rng(0).normal(size=(N, 3, 8)).astype(np.float32)
    task = task_of(nn.Conv1d(3, 5, 1), (x, [[1, 2, 3][: 1 + i % 3] for i in range(N)]), loss="ctc")
    assert sorted({tuple(v) for v in task.splits().train.all_targets().tolist()}) == [(1, 0, 0), (1, 2, 0), (1, 2, 3)]


@pytest.mark.parametrize(
    ("data", "message", "fix"),
    [
        ((IDS, [1] * N), "inputs have different lengths", "pad them"),
        ((IDS, TAGS[1:] + TAGS[:1]), "not as many as its inputs", "-100"),
        ((IDS, TAGS[1:]), "different lengths", None),
    ],
)
def test_what_is_not_plain_is_refused(data, message, fix):
    with pytest.raises(TaskError, match=message) as e:
        task_of(tokens(), data)
    assert fix is None or fix in e.value.fix


# --- loaders --------------------------------------------------------------------------------------


class Rows(Dataset):
    """Rows of 3 to 7 tokens, and longer by `more`; one target a token."""

    def __init__(self, more=0, flat=False, n=60):
        self.more, self.flat, self.n = more, flat, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        x = torch.tensor(np.random.default_rng(i + 1000 * self.more).integers(1, 30, 3 + i % 5 + self.more))
        return x, int(x[0]) % 2 if self.flat else x % 2


def collate(batch):
    x = pad_sequence([x for x, _ in batch], batch_first=True, padding_value=9)
    if isinstance(batch[0][1], int):
        return x, torch.tensor([y for _, y in batch])
    return x, pad_sequence([y for _, y in batch], batch_first=True, padding_value=-100)


def loader(rows, collate_fn=collate):
    return DataLoader(rows, batch_size=8, collate_fn=collate_fn, shuffle=True)


def test_a_loader_that_fills_up_each_batch_fills_up_all():
    task = task_of(tokens(), loader(Rows()))
    check_fit(task)
    found = whole(task)
    assert len(found) == 60 and {len(k) for k in found} == {len(v) for v in found.values()} == {7}
    short = next(k for k in found if k[3:] == (9,) * 4)  # as the loader itself fills up
    assert found[short][3:] == [-100] * 4 and any("3 to 7" in note for note in task.notes)
    one, alone = task.splits().train, task.splits().train.batch(np.array([5]))
    np.testing.assert_array_equal(one.batch(np.arange(8))[1][5], alone[1][0])


def test_loaders_of_several_splits_are_filled_up_alike():
    task = task_of(tokens(), {"train": loader(Rows()), "test": loader(Rows(2))})
    assert {len(k) for k in whole(task)} == {9}
    flat = task_of(nn.Sequential(tokens(), nn.Flatten(), nn.LazyLinear(2)), loader(Rows(flat=True)))
    assert {len(k) for k in whole(flat)} == {7}


def test_a_loader_that_does_not_is_refused():
    def cut(batch):
        wide = min(len(x) for x, _ in batch)
        return torch.stack([x[:wide] for x, _ in batch]), torch.stack([y[:wide] for _, y in batch])

    with pytest.raises(TaskError, match="makes no batches of one"):
        task_of(tokens(), loader(Rows(), cut))
    with pytest.raises(TaskError, match="make no batch"):
        task_of(tokens(), Rows())


def test_the_one_longer_row_that_was_not_looked_at_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("featherweight.task.accept._SOME", 10)

    class Late(Rows):
        def __getitem__(self, i):
            x = torch.arange(4 + (i == 201))
            return x, x % 2

    with pytest.raises(TaskError, match="another number of places") as e:
        task_of(tokens(), loader(Late(n=400))).splits()
    assert "pad or cut" in e.value.fix
