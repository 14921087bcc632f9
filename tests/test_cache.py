"""The reference cache on disk: whole or absent, never stale, never half-written."""

import json
import os
import time

import numpy as np
import pytest

from bnf_align.reference.cache import ReferenceCache, collect_garbage, namespaces, row_key

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))


def values(*lengths: int) -> list[np.ndarray]:
    return [-np.arange(1, n + 1, dtype=np.float32) / 3 for n in lengths]


@pytest.fixture
def cache(tmp_path) -> ReferenceCache:
    return ReferenceCache(tmp_path, {"weights": "w"}, about={"model": "tiny"})


def test_what_was_written_is_read_back_bit_for_bit_and_nothing_else(cache):
    a, b = values(3, 5)
    cache.write({A: a})
    cache.write({B: b})
    found = cache.read([A, B, C])
    assert set(found) == {A, B}
    assert np.array_equal(found[A], a)
    assert np.array_equal(found[B], b)
    assert found[A].dtype == np.float32


def test_an_empty_cache_answers_with_nothing_and_leaves_no_trace(cache, tmp_path):
    assert cache.read([A]) == {}
    cache.write({})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"weights": "v"}, {"weights": "w", "dtype": "float32"}])
def test_another_namespace_does_not_see_the_values(cache, tmp_path, change):
    cache.write({A: values(3)[0]})
    assert ReferenceCache(tmp_path, change).read([A]) == {}


def test_what_people_may_know_is_not_part_of_the_name(cache, tmp_path):
    cache.write({A: values(3)[0]})
    assert set(ReferenceCache(tmp_path, {"weights": "w"}, about={"model": "renamed"}).read([A])) == {A}


def test_a_shard_cut_short_is_noticed_ignored_and_deleted(cache, tmp_path):
    cache.write({A: values(3)[0]})
    cache.write({B: values(4)[0]})
    victim = next(path for path in cache.folder.glob("*.arrow"))
    victim.write_bytes(victim.read_bytes()[:-7])
    assert len(cache.read([A, B])) == 1
    (info,) = namespaces(tmp_path)
    assert info.damaged == [victim]
    doomed, _ = collect_garbage(tmp_path, older_than_days=90)
    assert doomed == [victim]
    assert not victim.exists()
    assert len(cache.read([A, B])) == 1


def test_one_flipped_bit_is_noticed(cache, tmp_path):
    cache.write({A: values(64)[0]})
    (shard,) = cache.folder.glob("*.arrow")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert cache.read([A]) == {}
    assert namespaces(tmp_path)[0].damaged == [shard]


def test_what_a_kill_left_behind_is_never_read_and_goes_after_an_hour(cache, tmp_path):
    cache.write({A: values(3)[0]})
    left = cache.folder / ".half.tmp"
    left.write_bytes(b"half a shard")
    assert set(cache.read([A, B])) == {A}
    assert collect_garbage(tmp_path, 90)[0] == []  # it may belong to a run that is alive
    os.utime(left, (time.time() - 7200,) * 2)
    assert collect_garbage(tmp_path, 90)[0] == [left]


def test_only_what_was_not_used_for_long_is_collected(cache, tmp_path):
    old = ReferenceCache(tmp_path, {"weights": "old"})
    for each in (cache, old):
        each.write({A: values(3)[0]})
    os.utime(old.folder / "manifest.json", (time.time() - 10 * 86400,) * 2)
    assert collect_garbage(tmp_path, 9, dry_run=True)[0]
    assert old.folder.exists()
    collect_garbage(tmp_path, 9)
    assert not old.folder.exists()
    assert set(cache.read([A])) == {A}


def test_reading_counts_as_use(cache, tmp_path):
    cache.write({A: values(3)[0]})
    os.utime(cache.folder / "manifest.json", (time.time() - 10 * 86400,) * 2)
    cache.read([A])
    assert time.time() - namespaces(tmp_path)[0].used < 86400


def test_the_manifest_says_what_the_values_are_of(cache):
    cache.write({A: values(3)[0]})
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    assert manifest == {"weights": "w", "about": {"model": "tiny"}}


def test_a_key_changes_with_any_token_and_with_what_is_scored():
    ids, mask = np.arange(10), np.array([False] * 5 + [True] * 5)
    keys = {row_key(ids, mask)}
    for i in range(10):
        changed = ids.copy()
        changed[i] += 1
        keys.add(row_key(changed, mask))
    shifted = np.roll(mask, 1)
    keys |= {row_key(ids, shifted), row_key(ids[:9], mask[:9]), row_key(np.append(ids, 0), np.append(mask, False))}
    assert len(keys) == 14


def test_a_key_does_not_depend_on_the_integer_type():
    ids, mask = np.arange(10), np.ones(10, dtype=bool)
    assert row_key(ids.astype(np.int32), mask) == row_key(ids.astype(np.int64), mask)


def test_two_processes_with_one_number_do_not_write_into_each_others_file(tmp_path, monkeypatch):
    """Containers on one disk count their processes each from 1."""
    import threading

    from bnf_align.outputs import write_json

    monkeypatch.setattr(os, "getpid", lambda: 1)
    values = [{"who": name, "text": name * 200_000} for name in "ab"]
    errors = []

    def write_often(value):
        try:
            for _ in range(20):
                write_json(tmp_path / "manifest.json", value)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write_often, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert json.loads((tmp_path / "manifest.json").read_text()) in values
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
