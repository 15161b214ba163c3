import os
from pathlib import Path

import pytest

from featherweight.errors import InputError, StoreError
from featherweight.store.artifacts import ArtifactStore, default_root, write_atomic

KEYS = [f"{i:02x}" + "0" * 62 for i in range(20)]


def writer(text="x", size=1000):
    return lambda folder: (folder / "data.bin").write_text(text * size)


def age(store, key, seconds):
    folder = store.folder(key)
    t = folder.stat().st_mtime - seconds
    os.utime(folder, (t, t))


def test_what_was_put_is_there_and_is_not_made_twice(tmp_path):
    store = ArtifactStore(tmp_path)
    assert store.get(KEYS[0]) is None
    first = store.put(KEYS[0], writer("a"))
    again = store.put(KEYS[0], lambda folder: pytest.fail("made twice"))
    assert first == again == store.get(KEYS[0])
    assert (first / "data.bin").read_text() == "a" * 1000


def test_a_failed_write_leaves_nothing(tmp_path):
    store = ArtifactStore(tmp_path)

    def half(folder):
        (folder / "data.bin").write_text("half")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        store.put(KEYS[0], half)
    assert store.get(KEYS[0]) is None and not list(tmp_path.glob(".incoming-*"))


@pytest.mark.parametrize("damage", ["change", "remove", "truncate"])
def test_a_damaged_entry_counts_as_absent(tmp_path, damage):
    ArtifactStore(tmp_path).put(KEYS[0], writer())
    store = ArtifactStore(tmp_path)
    file = store.folder(KEYS[0]) / "data.bin"
    {"change": lambda: file.write_text("y" * 1000), "remove": file.unlink, "truncate": lambda: file.write_text("x")}[
        damage
    ]()
    assert store.get(KEYS[0]) is None
    assert store.put(KEYS[0], writer("z")).joinpath("data.bin").read_text() == "z" * 1000


def test_the_longest_unused_go_first(tmp_path):
    store = ArtifactStore(tmp_path)
    for i, k in enumerate(KEYS[:5]):
        store.put(k, writer())
        age(store, k, 10_000 - i)
    store.get(KEYS[0])  # used now, so no longer the oldest
    each = store.stats()["bytes"] // 5
    assert store.shrink(3 * each) == 2 * each
    assert [store.get(k) is not None for k in KEYS[:5]] == [True, False, False, True, True]


def test_entries_in_use_are_spared_and_clear_removes_all(tmp_path):
    store = ArtifactStore(tmp_path)
    for k in KEYS[:3]:
        store.put(k, writer())
    assert store.shrink(1) == 0
    assert store.clear() > 3000 and store.stats()["entries"] == 0


def test_the_limit_holds_while_entries_are_put(tmp_path):
    store = ArtifactStore(tmp_path, limit_bytes=5000)
    for k in KEYS:
        store.put(k, writer())
        age(store, k, 10_000)
    assert store.stats()["bytes"] <= 5000 + 1200  # the newest is always kept


def test_a_limit_that_was_set_is_kept_for_later(tmp_path):
    ArtifactStore(tmp_path).set_limit(12345)
    assert ArtifactStore(tmp_path).limit_bytes == 12345
    with pytest.raises(InputError):
        ArtifactStore(tmp_path).set_limit(-1)


def test_a_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="FEATHERWEIGHT_CACHE"):
        ArtifactStore(tmp_path / "file" / "store")


def test_write_atomic_replaces_whole(tmp_path):
    write_atomic(tmp_path / "a" / "f.txt", "one")
    write_atomic(tmp_path / "a" / "f.txt", "two")
    assert (tmp_path / "a" / "f.txt").read_text() == "two" and len(list((tmp_path / "a").iterdir())) == 1


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    for name in ("FEATHERWEIGHT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(StoreError, match="FEATHERWEIGHT_CACHE"):
        default_root()
