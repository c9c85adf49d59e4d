"""Packages of articles become shards: each figure is a sample or has its reason, and a kill changes no byte."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from medclip.shards.folder import read_index
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.writing.tar import members
from tests.kits.articles import (
    CC_BY_NC,
    article,
    cite,
    figure,
    image,
    plain_article,
    write_folder,
    write_many,
    write_tar,
)
from tests.kits.kills import differing, left_behind

ALL_TRAIN = {"train": 1.0}


@pytest.fixture
def make(tmp_path):
    def shards(place: Path, name: str = "out", **options):
        settings = Settings(workers=1, home=tmp_path / "home")
        return medclip.pairs.from_articles(place, tmp_path / name, settings=settings, **options)

    return shards


def _samples(folder: Path) -> dict[str, dict[str, bytes]]:
    parts = {}
    for row in pq.read_table(folder / "samples.parquet").to_pylist():
        data = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        parts[row["key"]] = members(data)
    return parts


def _rejects(folder: Path) -> dict[str, str]:
    return {row["message"]: row["reason"] for row in pq.read_table(folder / "rejects.parquet").to_pylist()}


def test_words_and_pixels_come_back_as_they_were_written(tmp_path, make) -> None:
    caption = "<p>Ä \u00b5m \u2265 5.</p>"
    body = f"<p>See {cite(1, words='Fig. 1B')}.</p>{figure(1, 'a.tif', caption)}"
    write_tar(tmp_path / "in" / "p.tar.gz", article(body), {"a.gif": image(kind="GIF"), "a.jpg": image(1, width=600)})
    report = make(tmp_path / "in", splits=ALL_TRAIN)
    (parts,) = _samples(report.folder).values()
    stored = json.loads(parts["json"])
    assert parts["txt"].decode() == "Ä \u00b5m \u2265 5." == stored["record"]["texts"][0]
    assert stored["record"]["long_captions"] == ["See Fig. 1B."]
    fields = stored["article"]
    assert fields["context"] == ["See [FIG:a.tif|Fig. 1B]."]
    assert (fields["image_id"], fields["file"], fields["panels"], fields["label"]) == (
        "a.tif",
        "a.jpg",
        ["B"],
        "Figure 1",
    )
    assert tuple(fields["size"]) == Image.open(io.BytesIO(parts["png"])).size == (288, 19)
    assert fields["source_size"] == [600, 40]
    assert fields["article"]["accession_id"] == "PMC1"
    assert stored["meta"]["license"] == fields["article"]["license"] == "CC BY"
    assert check_shards(report.folder).ok


def test_every_figure_and_every_package_ends_in_one_row(tmp_path, make) -> None:
    root = tmp_path / "in"
    captions = {n: f"<p>Figure of {n}.</p>" for n in ("gone", "small", "broken", "good")}
    body = "".join(figure(n, name, words) for n, (name, words) in enumerate(captions.items()))
    body += figure(8, "wordless") + '<disp-formula><graphic xlink:href="e1"/></disp-formula>'
    files = {
        "small.png": image(height=20, kind="PNG"),
        "broken.jpg": image()[:200],
        "good.jpg": image(3),
        "wordless.jpg": image(4),
    }
    write_folder(root / "a", article(body, pmc="1"), files)
    write_folder(root / "b", article("<p/>", pmc="2"), {})
    bomb = "<!DOCTYPE article [<!ENTITY a 'ha'>]>"
    write_folder(root / "c", article(body, pmc="3", head=bomb), files)
    link = tarfile.TarInfo("PMC/link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    write_tar(root / "d.tar.gz", plain_article(4), {"a.jpg": image()}, extra=[link])
    write_tar(root / "e.tar.gz", plain_article(5), {}, extra=[tarfile.TarInfo("../../x.jpg")])
    (root / "f.tar.gz").write_bytes(
        write_tar(root / "whole.tar.gz", plain_article(6), {"a.jpg": image()}).read_bytes()[:90]
    )
    (root / "whole.tar.gz").unlink()
    (root / "g.tar.gz").write_bytes(b"no tar")
    write_folder(root / "h", article(body, pmc="1"), files)
    report = make(root, splits=ALL_TRAIN)
    assert list(_samples(report.folder)) == ["PMC1-0004"]
    rejects = _rejects(report.folder).items()
    rows = {message.split(": ")[message.startswith("a: ")]: reason for message, reason in rejects}
    assert rows == {
        "gone": "missing_file",
        "small": "too_small",
        "broken": rows["broken"],
        "wordless": "empty_caption",
        "e1": "not_an_image",
        "b": "no_pixels",
        "c": "corrupt",
        "d.tar.gz": "link_outside",
        "e.tar.gz": "link_outside",
        "f.tar.gz": "truncated",
        "g.tar.gz": "corrupt",
        "h": "duplicate",
    }
    assert rows["broken"] in ("truncated", "corrupt")
    assert sum(report.counts_by_reason.values()) + report.num_samples == 13


def test_a_tar_that_unpacks_to_more_than_a_package_may_be_is_refused(tmp_path, make, monkeypatch) -> None:
    monkeypatch.setattr("medclip.pairs.sources.articles.packages.MAX_UNPACKED_BYTES", 1 << 20)
    from medclip.pairs.sources.articles.packages import list_packages, open_package

    film = tarfile.TarInfo("PMC/film.avi")
    film.size = 2 << 20
    place = tmp_path / "p.tar.gz"
    with tarfile.open(place, "w:gz") as tar:
        tar.addfile(film, io.BytesIO(bytes(film.size)))
        tar.addfile(tarfile.TarInfo("PMC/after.jpg"))
    with pytest.raises(MedclipError) as refused:
        open_package(list_packages(place)[0])
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("mode", "kind", "grey"),
    [
        ("RGBA", "PNG", False),
        ("P", "PNG", False),
        ("CMYK", "JPEG", False),
        ("I;16", "PNG", True),
        ("I;16", "TIFF", True),
    ],
)
def test_depth_inks_and_transparency_become_eight_bits(tmp_path, make, mode: str, kind: str, grey: bool) -> None:
    name = f"a.{ {'JPEG': 'jpg', 'TIFF': 'tif'}.get(kind, 'png') }"
    write_folder(tmp_path / "in", article(figure(1, "a", "<p>A.</p>")), {name: image(mode=mode, kind=kind)})
    report = make(tmp_path / "in", splits=ALL_TRAIN)
    (parts,) = _samples(report.folder).values()
    assert Image.open(io.BytesIO(parts["png"])).mode == ("L" if grey else "RGB")


def test_what_is_transparent_lies_on_white_paper(tmp_path, make) -> None:
    buffer = io.BytesIO()
    drawn = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), (0, 0, 20, 20))
    drawn.save(buffer, "PNG")
    write_folder(tmp_path / "in", article(figure(1, "a", "<p>A.</p>")), {"a.png": buffer.getvalue()})
    (parts,) = _samples(make(tmp_path / "in", splits=ALL_TRAIN).folder).values()
    assert Image.open(io.BytesIO(parts["png"])).convert("L").getpixel((39, 39)) == 255


def test_licences_are_counted_and_those_that_are_wanted_kept(tmp_path, make) -> None:
    for n, license_ in enumerate((None, CC_BY_NC, "")):
        xml = plain_article(n) if license_ is None else plain_article(n, license_=license_)
        write_folder(tmp_path / "in" / f"p{n}", xml, {"a.jpg": image(2 * n), "b.jpg": image(2 * n + 1)})
    report = make(tmp_path / "in", splits=ALL_TRAIN)
    assert report.counts_by_license_class == {"commercial": 2, "non-commercial": 2, "other": 2}
    assert report.num_without_license == 1
    assert report.num_of_other_licenses == 0
    kept = make(tmp_path / "in", "kept", license="commercial", splits=ALL_TRAIN)
    assert set(pq.read_table(kept.folder / "samples.parquet")["license"].to_pylist()) == {"CC BY"}
    assert kept.num_of_other_licenses == 4
    assert kept.counts_by_reason == {"other_input": 4}


def test_a_list_says_what_the_article_does_not_and_its_files_lie_beside_it(tmp_path, make) -> None:
    images = {"a.jpg": image(), "b.jpg": image(1)}
    write_tar(tmp_path / "aa" / "p.tar.gz", article(figure(1, "a", "<p>A.</p>"), pmc="", license_=""), images)
    head = "File,Article Citation,Accession ID,Last Updated (YYYY-MM-DD HH:MM:SS),PMID,License\n"
    rows = 'aa/p.tar.gz,"J. 2024; 1:1",PMC9,2024-01-01 00:00:00,12,CC BY-NC\n../away.tar.gz,,PMC8,,,CC BY\n'
    (tmp_path / "list.csv").write_text(head + rows)
    report = make(tmp_path / "list.csv", splits=ALL_TRAIN)
    ((key, parts),) = _samples(report.folder).items()
    fields = json.loads(parts["json"])["article"]["article"]
    assert key == "PMC9-0001"
    assert (fields["citation"], fields["pmid"], fields["license"]) == ("J. 2024; 1:1", "12", "CC BY-NC")
    assert report.counts_by_reason == {"link_outside": 1}


def test_no_split_cuts_an_article_and_tars_are_full(tmp_path, make) -> None:
    report = make(write_many(tmp_path / "in", 12), splits={"train": 0.5, "test": 0.5}, samples_per_shard=5)
    rows = pq.read_table(report.folder / "samples.parquet").to_pylist()
    sides = {(row["patient"], row["split"]) for row in rows}
    assert len(sides) == len({row["patient"] for row in rows}) == 12
    index = read_index(report.folder)
    for split, number in report.counts_by_split.items():
        assert sum(shard["split"] == split for shard in index["shards"]) == -(-number // 5)
    assert len({row["key"] for row in rows}) == len(rows) == 24


def test_an_article_keeps_its_split_whatever_its_package_is_called_and_whoever_joins_it(tmp_path, make) -> None:
    splits = {"train": 0.5, "test": 0.5}
    few = pq.read_table(make(write_many(tmp_path / "in", 6), "few", splits=splits).folder / "samples.parquet")
    write_many(tmp_path / "in" / "zz", 12)  # the first six are there already
    for n in (0, 2, 4):
        (tmp_path / "in" / f"p{n}").rename(tmp_path / "in" / f"renamed{n}")
    many = pq.read_table(make(tmp_path / "in", "many", splits=splits).folder / "samples.parquet")
    sides = dict(zip(many["key"].to_pylist(), many["split"].to_pylist(), strict=True))
    assert len(sides) == 24
    assert {key: sides[key] for key in few["key"].to_pylist()} == dict(
        zip(few["key"].to_pylist(), few["split"].to_pylist(), strict=True)
    )


@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(tmp_path, make, monkeypatch, at: int) -> None:
    from medclip.pairs.sources.articles.journal import ArticleJournal

    root = write_many(tmp_path / "in", 6)
    undisturbed = make(root, "undisturbed")
    note, noted = ArticleJournal.note, []

    def stop(journal, package, result):
        if len(noted) == at:
            raise KeyboardInterrupt
        noted.append(package.name)
        note(journal, package, result)

    monkeypatch.setattr(ArticleJournal, "note", stop)
    with pytest.raises(KeyboardInterrupt):
        make(root)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(ArticleJournal, "note", lambda *args: (noted.append(args[1].name), note(*args)))
    report = make(root)
    assert sorted(noted) == sorted(set(noted)), "a package was read twice"
    assert differing(left_behind(report.folder), left_behind(undisturbed.folder)) == {}
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_package_that_changed_since_the_stop_is_read_again(tmp_path, make, monkeypatch) -> None:
    from medclip.pairs.sources.articles import from_articles

    root = write_many(tmp_path / "in", 3)
    writing = from_articles._Writing
    monkeypatch.setattr(from_articles, "_Writing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(root)
    monkeypatch.setattr(from_articles, "_Writing", writing)
    (root / "p0" / "article.nxml").write_bytes(plain_article(0).replace(b"An opacity", b"Two opacities"))
    report = make(root)
    assert any(b"Two opacities" in parts["txt"] for parts in _samples(report.folder).values())


def test_a_run_that_was_killed_when_nothing_was_left_to_do_has_ended(tmp_path, make, monkeypatch) -> None:
    root, remove = write_many(tmp_path / "in", 2), shutil.rmtree
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **more: None if "unfinished" in path.name else remove(path, **more)
    )
    report = make(root)
    assert list(tmp_path.glob("*.unfinished"))
    monkeypatch.undo()
    assert make(root).to_dict() == report.to_dict()
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_folder_without_packages_and_one_without_usable_figures_are_refused(tmp_path, make) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedclipError) as refused:
        make(tmp_path / "empty")
    assert refused.value.reason is Reason.NOTHING_TO_DO
    write_folder(tmp_path / "in", plain_article(0), {})
    with pytest.raises(MedclipError) as refused:
        make(tmp_path / "in")
    assert refused.value.reason is Reason.NOTHING_TO_DO
    assert "missing_file 2" in str(refused.value)
