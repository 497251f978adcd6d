"""Atomic files: a reader sees the old file or the new one, never half of one."""

import ctypes
import errno
import hashlib
import os
import time

import pytest

from d2rnet.errors import D2RNetError, DatasetError
from d2rnet.files import atomic, documents, hashes


def test_json_round_trip_keeps_unicode_and_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": "Größe 3 cm"}
    documents.write_json(tmp_path / "deep" / "x.json", value)
    assert list(documents.read_json(tmp_path / "deep" / "x.json")) == ["b", "a"]
    assert documents.read_json(tmp_path / "deep" / "x.json") == value


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "x.json"
    documents.write_json(target, {"version": 1})
    with pytest.raises(ValueError):
        documents.write_json(target, {"version": 2, "bad": float("nan")})
    assert documents.read_json(target) == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError) as caught:
        atomic.write_text(tmp_path / "x.txt", "text")
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{tmp_path / 'x.txt'}'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "named"), [(errno.EDQUOT, True), (errno.EIO, False)])
def test_an_error_that_may_be_of_a_file_that_is_read_is_not_put_on_the_one_written(tmp_path, code, named):
    with pytest.raises(OSError) as caught, atomic.atomic_path(tmp_path / "x.txt"):
        raise OSError(code, "reason")
    assert (caught.value.filename == str(tmp_path / "x.txt")) == named


def test_a_file_system_is_flushed_or_says_why_not(tmp_path, monkeypatch):
    atomic.flush_file_system(tmp_path)

    class Refuses:
        def syncfs(self, handle: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: Refuses())
    with pytest.raises(OSError) as caught:
        atomic.flush_file_system(tmp_path)
    assert caught.value.errno == errno.EIO and caught.value.filename == str(tmp_path)


def test_file_mode_follows_the_umask(tmp_path):
    atomic.write_text(tmp_path / "x.txt", "text")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": \xff}'])
def test_broken_json_names_the_file(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.json"):
        documents.read_json(path)


def test_jsonl_round_trip_and_bad_line(tmp_path):
    path = tmp_path / "x.jsonl"
    assert documents.write_jsonl(path, iter([{"a": 1}, {"a": "zwei\nZeilen"}])) == 2
    assert list(documents.read_jsonl(path)) == [{"a": 1}, {"a": "zwei\nZeilen"}]
    path.write_text('{"a": 1}\n\n[2]\n')
    with pytest.raises(DatasetError, match="line 3 is a list"):
        list(documents.read_jsonl(path))


@pytest.mark.parametrize(
    ("text", "kept"), [('{"a": 1}\n{"a": 2}\n', [1, 2]), ('{"a": 1}\n{"a": ', [1]), ('{"a', []), ("", [])]
)
def test_line_cut_by_a_kill_is_removed(tmp_path, text, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    assert [record["a"] for record in documents.read_jsonl_of_killed(path)] == kept
    assert path.read_text() == "".join(f'{{"a": {value}}}\n' for value in kept)


def test_no_file_of_a_killed_process_holds_no_record(tmp_path):
    assert documents.read_jsonl_of_killed(tmp_path / "absent.jsonl") == []


def test_fingerprint_ignores_key_order_and_sees_values():
    assert hashes.fingerprint({"a": 1, "b": 2}) == hashes.fingerprint({"b": 2, "a": 1})
    assert hashes.fingerprint({"a": 1}) != hashes.fingerprint({"a": 1.5})


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert hashes.sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("what", ["a folder", "a pipe, socket or device"])
def test_no_file_takes_the_place_of_something_else(tmp_path, what):
    """A pipe stands for ``/dev/null``, which the rename would replace."""
    target = tmp_path / "target"
    target.mkdir() if what == "a folder" else os.mkfifo(target)
    with pytest.raises(D2RNetError, match=f"target: got {what}; expected the path of a file to write"):
        atomic.write_text(target, "text")
    assert not target.is_file() and [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("loop", "a link that leads to itself"), ("x" * 300, "a name longer than"), ("file/x.json", "a path that goes through")],
)
def test_paths_that_cannot_be_a_files(tmp_path, name, words):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DatasetError, match=f"got {words}"):
        documents.read_json(tmp_path / name)


def test_a_key_given_twice_among_very_many_is_found_at_once(tmp_path):
    """Each key looked for among all of them took hours for a file of a megabyte."""
    text = "".join(f'"k{number}":1,' for number in range(200_000))
    (tmp_path / "x.json").write_text("{" + text + '"k199999":2}')
    started = time.monotonic()
    with pytest.raises(DatasetError, match="the key 'k199999' occurs twice"):
        documents.read_json(tmp_path / "x.json")
    assert time.monotonic() - started < 10


def test_many_files_are_told_apart_by_their_sizes_in_order(tmp_path):
    for name, size in (("a", 3), ("b", 5), ("c", 5)):
        (tmp_path / name).write_bytes(bytes(size))

    def digest(*names):
        return hashes.sha256_of(hashes.ManyFiles(tmp_path, [tmp_path / name for name in names]))

    assert digest("a", "b") == digest("a", "c") == hashlib.sha256(b"3\n5\n").hexdigest()
    assert len({digest("a", "b"), digest("b", "a"), digest("a"), digest("a", "gone"), digest("a", "a/b/c")}) == 4
    assert digest("a", "gone") == digest("a", "a/b/c") == hashlib.sha256(b"3\n-1\n").hexdigest()
    assert hashes.sha256_of(tmp_path / "a") == hashes.sha256_file(tmp_path / "a")
