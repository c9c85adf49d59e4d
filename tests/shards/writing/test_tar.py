from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.shards.writing.tar import TarShard, member_names, members, split_name

CONTENT = st.dictionaries(st.sampled_from(["png", "json", "txt", "cls"]), st.binary(max_size=1500), min_size=1)


def packed(contents, *, key="k", form=tarfile.USTAR_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for extension, data in contents.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@given(CONTENT)
def test_members_are_what_was_put_in(contents):
    data = packed(contents)
    assert members(data) == contents
    assert member_names(data) == [f"k.{e}" for e in contents]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "key", ["000001", "folder.d/000001", "d" * 90 + "/" + "n" * 60, "ärzte/x", "e" * 99 + "/ü" * 40]
)
def test_every_form_of_tar_reads_as_tarfile_reads_it(key, form):
    contents = {"jpg": b"a" * 700, "txt": b"words"}
    try:
        data = packed(contents, key=key, form=form)
    except ValueError:
        pytest.skip("this form cannot hold this name")
    assert members(data) == contents
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert member_names(data) == tar.getnames()


@given(CONTENT, st.data())
def test_damaged_bytes_are_an_error_or_the_same_members_never_nonsense(contents, drawn):
    data = bytearray(packed(contents))
    at = drawn.draw(st.integers(0, 511))
    data[at] ^= 1 << drawn.draw(st.integers(0, 7))
    with pytest.raises(tarfile.TarError):
        members(bytes(data))
    with pytest.raises(tarfile.TarError):
        members(bytes(packed(contents)[:300]))


def test_a_member_that_is_cut_is_an_error():
    with pytest.raises(tarfile.TarError):
        members(packed({"png": b"a" * 2000})[:1000])
    with pytest.raises(tarfile.TarError):
        members(bytes(1024))


def test_a_sample_is_found_where_the_shard_says(tmp_path):
    with TarShard(tmp_path / "a.tar") as shard:
        places = [shard.add(f"k{i}", [("png", bytes(i * 100)), ("txt", b"t")]) for i in range(5)]
        shard.close()
    data = (tmp_path / "a.tar").read_bytes()
    for i, (offset, size) in enumerate(places):
        assert members(data[offset : offset + size]) == {"png": bytes(i * 100), "txt": b"t"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a.png", ("a", "png")), ("a.b/c.seg.png", ("a.b/c", "seg.png")), ("a", ("a", "")), ("d/.x", ("d/", "x"))],
)
def test_names_are_split_as_webdataset_does(name, parts):
    assert split_name(name) == parts
