"""Artifacts: a version is a folder that is whole or not there, and what is loaded is what was published."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ratatouille.errors import LakeError, RequestError
from ratatouille.lake import Entry, Storage, artifacts

ASSET = "models.classifier"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / ".rat").mkdir()
    return Storage(tmp_path / ".rat" / "catalog.sqlite", tmp_path / ".rat" / "data", tmp_path / ".rat" / "spill")


def make(storage: Storage, run_id: str, files: dict[str, str], *, base: int | None = None) -> Entry | None:
    aside = artifacts.begin(storage, ASSET, run_id, "1.1")
    for name, content in files.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_text(content)
    staged = artifacts.finish(storage, ASSET, run_id, "1.1", aside, {"kind": "folder"})
    known = artifacts.published(storage, ASSET)
    at = base if base is not None else (known[-1].entry.version if known else 0)
    return artifacts.publish(storage, entry(run_id, at), staged.folder)


def entry(run_id: str, base: int = 0) -> Entry:
    return Entry(ASSET, run_id, materialize="artifact", base_version=base, code_hash=f"code of {run_id}")


def folder(storage: Storage) -> Path:
    found = artifacts.current(storage, ASSET)
    assert found is not None
    return found[0]


def test_a_version_is_a_folder_with_read_only_files_and_a_manifest(storage: Storage) -> None:
    make(storage, "run-1", {"weights.bin": "w", "sub/labels.txt": "l"})
    home = folder(storage)
    assert home.name == "run-1"
    assert home.parent == storage.catalog.parent / "artifacts" / ASSET
    manifest = json.loads((home / artifacts.MANIFEST).read_text())
    assert sorted(file["path"] for file in manifest["files"]) == ["sub/labels.txt", "weights.bin"]
    for path in (home / "weights.bin", home / "sub/labels.txt", home / artifacts.MANIFEST):
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_nothing_is_current_before_the_pointer_moves(storage: Storage) -> None:
    aside = artifacts.begin(storage, ASSET, "run-1", "1.1")
    (aside / "weights.bin").write_text("w")
    assert artifacts.current(storage, ASSET) is None
    staged = artifacts.finish(storage, ASSET, "run-1", "1.1", aside, {})
    assert artifacts.current(storage, ASSET) is None
    artifacts.publish(storage, entry("run-1"), staged.folder)
    assert folder(storage) == staged.folder


def test_equal_files_are_stored_once(storage: Storage) -> None:
    make(storage, "run-1", {"weights.bin": "the same", "notes.txt": "first"})
    first = folder(storage)
    make(storage, "run-2", {"weights.bin": "the same", "notes.txt": "second"})
    second = folder(storage)
    assert (first / "weights.bin").stat().st_ino == (second / "weights.bin").stat().st_ino
    assert (first / "notes.txt").stat().st_ino != (second / "notes.txt").stat().st_ino
    assert artifacts.verify(second)["run_id"] == "run-2"


def test_a_damaged_file_is_not_linked_again(storage: Storage) -> None:
    make(storage, "run-1", {"weights.bin": "the same"})
    first = folder(storage)
    os.chmod(first / "weights.bin", 0o644)
    (first / "weights.bin").write_text("the sane")
    make(storage, "run-2", {"weights.bin": "the same"})
    assert artifacts.verify(folder(storage))
    assert (folder(storage) / "weights.bin").read_text() == "the same"


@pytest.mark.parametrize(
    ("content", "why"), [("flipped!", "checksum"), ("short", "5 bytes instead of 8"), (None, "read")]
)
def test_what_is_damaged_is_not_loaded(storage: Storage, content: str | None, why: str) -> None:
    make(storage, "run-1", {"weights.bin": "original"})
    path = folder(storage) / "weights.bin"
    os.chmod(path, 0o644)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(LakeError, match="is damaged") as raised:
        artifacts.verify(folder(storage))
    assert why in raised.value.where


def test_the_later_of_two_writers_is_told(storage: Storage) -> None:
    make(storage, "run-1", {"a": "1"})
    assert make(storage, "run-2", {"a": "2"}, base=0) is None
    assert folder(storage).name == "run-1"


def test_publishing_twice_is_publishing_once(storage: Storage) -> None:
    made = make(storage, "run-1", {"a": "1"})
    again = artifacts.publish(storage, entry("run-1"), folder(storage))
    assert again == made
    assert len(artifacts.published(storage, ASSET)) == 1


def test_going_back_is_a_new_version_of_the_old_folder(storage: Storage) -> None:
    make(storage, "run-1", {"a": "1"})
    make(storage, "run-2", {"a": "2"})
    back = artifacts.roll_back(storage, ASSET, 1, "run-3")
    assert (back.version, back.action, back.restored_version) == (3, "rollback", 1)
    assert (folder(storage) / "a").read_text() == "1"
    assert artifacts.published(storage, ASSET)[-1].folder == "run-1"
    with pytest.raises(RequestError, match="no version 9"):
        artifacts.roll_back(storage, ASSET, 9, "run-4")


def test_going_back_holds_the_artifact_until_it_is_released(storage: Storage) -> None:
    make(storage, "run-1", {"a": "1"})
    make(storage, "run-2", {"a": "2"})
    assert artifacts.hold(storage, ASSET) is None
    artifacts.roll_back(storage, ASSET, 1, "run-3")
    held = artifacts.hold(storage, ASSET)
    assert held is not None and (held.version, held.code_hash, held.run_id) == (1, "code of run-2", "run-3")
    assert artifacts.release(storage, ASSET) == held
    assert artifacts.hold(storage, ASSET) is None
    with pytest.raises(RequestError, match="not on hold"):
        artifacts.release(storage, ASSET)
    assert (folder(storage) / "a").read_text() == "1"


def test_an_entry_is_read_as_it_was_written(storage: Storage) -> None:
    made = make(storage, "run-1", {"a": "1"})
    assert made is not None
    assert [one.entry for one in artifacts.published(storage, ASSET)] == [made]
    assert artifacts.names(storage) == [ASSET]


def test_a_pointer_of_before_entries_said_more_is_read(storage: Storage) -> None:
    made = make(storage, "run-1", {"weights.bin": "w"})
    pointer = folder(storage).parent / artifacts.POINTER
    said = json.loads(pointer.read_text())
    for name in ("note", "partitions"):
        del said["published"][0]["entry"][name]
    pointer.write_text(json.dumps(said))
    assert [one.entry for one in artifacts.published(storage, ASSET)] == [made]


def test_a_link_is_no_file(storage: Storage) -> None:
    aside = artifacts.begin(storage, ASSET, "run-1", "1.1")
    (aside / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(LakeError, match="is a link"):
        artifacts.finish(storage, ASSET, "run-1", "1.1", aside, {})


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden"])
def test_a_name_stays_in_its_folder(storage: Storage, name: str) -> None:
    with pytest.raises(RequestError, match="no name for an artifact"):
        artifacts.folder_of(storage, name)
