from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

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
    with pytest.raises(LoadError, match="would have to be unpickled"):
        files.read_archive(tmp_path / "a.npz", "archive")


def header(shape, dtype="<f8"):
    """The beginning of an .npy file, without the values."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (header((10**13,)), r"shape \(10000000000000,\) and dtype float64 in 0 bytes"),
        (header((2,)) + bytes(8), r"shape \(2,\) and dtype float64 in 8 bytes"),
        (header((1,)) + bytes(16), r"shape \(1,\) and dtype float64 in 16 bytes"),
        (header((-1,)) + bytes(8), r"shape \(-1,\)"),
        (header((1,), f"<U{10**8}"), "in 0 bytes"),
        (b"\x93NUMPY\x09\x00" + header((1,))[8:], "array of format"),
        (b"text", "EOF|magic"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_are_no_larger_than_the_file(tmp_path, member, said, compression):
    path = files.write_archive(tmp_path / "a.npz", "{}", {})
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(LoadError, match=said):
        files.read_archive(path, "archive")


def test_a_bomb_is_not_unpacked(tmp_path):
    size = 200 * 2**20
    path = files.write_archive(tmp_path / "a.npz", "{}", {})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("x.npy", "w") as x:
        x.write(header((size,), "|u1"))
        for _ in range(200):
            x.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(LoadError, match="it unpacks to 209715"):
        files.read_archive(path, "archive")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_arrays_that_were_read_stay_as_they_are(tmp_path):
    path = files.write_archive(
        tmp_path / "a.npz", "{}", {"x": np.asfortranarray(np.eye(3)), "t": np.array(["a", "bc"])}
    )
    text, arrays = files.read_archive(path, "archive")
    assert text == "{}"
    assert arrays["t"].tolist() == ["a", "bc"]
    assert arrays["x"].tolist() == np.eye(3).tolist()
    assert not arrays["x"].flags.writeable


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
