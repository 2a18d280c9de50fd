from __future__ import annotations

import json

import numpy as np
import pytest

from kxai import files
from kxai.errors import ArgumentError, LoadError


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "mobilenet.keras").touch()
    with pytest.raises(LoadError, match=r"There is no model at .*mobilnet.keras") as caught:
        files.existing(tmp_path / "mobilnet.keras", "model")
    assert "did you mean mobilenet.keras?" in str(caught.value)
    assert "among the 1 entries" in str(caught.value)


def test_nothing_similar(tmp_path):
    with pytest.raises(LoadError, match="Fix: check the path"):
        files.existing(tmp_path / "x.keras", "model")


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = files.write_archive(tmp_path / "a.npz", "{}", {"x": np.arange(3)})
    monkeypatch.setattr(np, "savez", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_archive(path, "{}", {"x": np.arange(5)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
    assert len(files.read_archive(path, "archive")[1]["x"]) == 3


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"(?s)cannot be written to .*none/a\.npz.*no folder .*none.*make the folder"
    ):
        files.write_archive(tmp_path / "none" / "a.npz", "{}", {})
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(ArgumentError, match=r"(?s)cannot be written.*a folder$"):
        files.write_archive(tmp_path / "a.npz", "{}", {})
    with pytest.raises(ArgumentError, match=r"(?s)The file has no place.*None"):
        files.writable(None, "file")
    assert files.writable(tmp_path / "new.npz", "file") == tmp_path / "new.npz"


@pytest.mark.parametrize("name", ["a", "a.npy", "a.npz.txt"])
def test_ending(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"ends in \.npz"):
        files.write_archive(tmp_path / name, "{}", {})
    assert not list(tmp_path.iterdir())


def test_objects_are_not_pickled(tmp_path):
    with pytest.raises(ArgumentError, match="The array x cannot be stored.*dtype object".replace(".*", r"[\s\S]*")):
        files.write_archive(tmp_path / "a.npz", "{}", {"x": np.array([None])})


def test_pickled_content_is_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", json=np.array([{"a": 1}], dtype=object))
    with pytest.raises(LoadError, match="allow_pickle=False"):
        files.read_archive(tmp_path / "a.npz", "archive")


def test_every_truncation_is_refused(tmp_path):
    path = files.write_archive(tmp_path / "a.npz", json.dumps({"a": 1}), {"x": np.arange(300.0)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(LoadError, match=f"Received: {length} bytes"):
            files.read_archive(path, "archive")


def test_a_flipped_byte_is_seen(tmp_path):
    path = files.write_archive(tmp_path / "a.npz", "{}", {"x": np.arange(300.0)})
    damaged = bytearray(path.read_bytes())
    damaged[1200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(LoadError, match="CRC"):
        files.read_archive(path, "archive")


def test_a_folder_is_no_archive(tmp_path):
    with pytest.raises(LoadError, match="Received: a folder"):
        files.read_archive(tmp_path, "archive")


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}])
def test_json_copy_refuses(value):
    with pytest.raises(ArgumentError, match="config cannot be written as JSON"):
        files.json_copy(value)


def test_json_copy_is_independent():
    original = {"notes": ["a"]}
    copy = files.json_copy(original)
    original["notes"].append("b")
    assert copy == {"notes": ["a"]}
