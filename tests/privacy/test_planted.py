"""Identifiers planted in every kind of file appear in nothing that medclip writes."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from pydicom import dcmread

import medclip
from examples import make_phantoms as phantoms
from medclip import open_study, view
from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.settings import Settings
from medclip.shards.writing.table import read_shard_table
from tests.kits.scoring import every_way, make_pack, write_png

NAME, NUMBER, BIRTH, PLACE = "Zacharias^Wuthering", "MRN-4471190", "19310704", "Brontewood Infirmary"
SECRETS = ("Zacharias", "Wuthering", "WUTHERING", NUMBER, BIRTH, "Brontewood", "1931-07-04", "04.07.1931")
SETTINGS = Settings(workers=2)


def _plant(path: Path) -> None:
    """Fill a DICOM header with identifiers, private elements and free texts among them."""
    data = dcmread(path)
    data.PatientName, data.PatientID, data.PatientBirthDate = NAME, NUMBER, BIRTH
    data.InstitutionName, data.StudyDescription = PLACE, f"follow-up of {NAME}"
    data.SeriesDescription, data.ProtocolName, data.PatientComments = NAME, NAME, f"<b>{NAME}</b>"
    data.BodyPartExamined, data.SequenceName, data.ManufacturerModelName = "WUTHERING", "WUTHERING", PLACE
    data.Manufacturer, data.ImageComments, data.OperatorsName = PLACE, NAME, NAME
    data.PatientAge = "095Y"
    block = data.private_block(0x0099, "MEDCLIP TEST", create=True)
    block.add_new(0x01, "LO", NAME)
    data.save_as(path)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with identifiers in each format, whole and cut off; and the UIDs in it."""
    root = tmp_path_factory.mktemp("planted") / "in"
    phantoms.ct_series(root / "ct", num_slices=5, size=48)
    phantoms.ultrasound_cine(root / "us/loop.dcm", num_frames=3)
    phantoms.oct_scan(root / "oct/scan.dcm", num_frames=2)
    grey = (phantoms.chest_slice(64, 0.5) + 1024).astype(np.uint16)
    phantoms.dicom(root / "dx/film.dcm", "1.2.840.10008.5.1.4.1.1.1.1", "DX", 1, grey)
    phantoms.ecg_record(root / "ecg", comments=[f"patient {NAME}", NUMBER])
    phantoms.slide(root / "wsi/slide.tiff", 512, 768, software=f"{PLACE} {NAME}")
    phantoms.endoscopy_video(root / "es/video.mp4", num_frames=4)
    phantoms.mr_volume(root / "mr/brain.nii.gz", size=24)
    import nibabel

    image = nibabel.load(root / "mr/brain.nii.gz")
    image.header["descrip"] = f"{NAME} {NUMBER}"  # pyright: ignore[reportIndexIssue]
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header), root / "mr/b.nii")
    uids: list[str] = []
    for path in sorted(root.rglob("*.dcm")):
        _plant(path)
        data = dcmread(path, stop_before_pixels=True)
        uids += [str(data.StudyInstanceUID), str(data.SeriesInstanceUID), str(data.SOPInstanceUID)]
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        cut = root / "cut" / path.parent.name / path.name
        cut.parent.mkdir(parents=True, exist_ok=True)
        body = path.read_bytes()
        cut.write_bytes(body[: int(len(body) * 0.6)])
    return root, uids


def _written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Give everything below a folder in readable form: tables, databases, archives and plain bytes."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield f"name of {path.name}", path.name.encode()
        body = path.read_bytes()
        yield path.name, body
        if path.suffix == ".parquet":
            yield path.name, repr(pyarrow.parquet.read_table(path).to_pydict()).encode()
        elif path.suffix == ".sqlite":
            with contextlib.closing(sqlite3.connect(path)) as base:
                yield path.name, "\n".join(base.iterdump()).encode()
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    yield member.name, b"" if stream is None else stream.read()
        elif path.suffix == ".png":
            yield path.name, _png_texts(body)


def _png_texts(body: bytes) -> bytes:
    found, at = b"", 8
    while at + 8 <= len(body):
        size = int.from_bytes(body[at : at + 4])
        kind, chunk = body[at + 4 : at + 8], body[at + 8 : at + 8 + size]
        if kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf"):
            found += chunk
            with contextlib.suppress(zlib.error):
                found += zlib.decompress(chunk.partition(b"\0")[2][1:])
        at += 12 + size
    return found


def _nothing_in(where: str, body: bytes, uids: list[str]) -> None:
    for secret in (*SECRETS, *uids):
        for encoding in ("utf-8", "utf-16-le"):
            assert secret.encode(encoding) not in body, f"{secret} in {where}"


def test_scoring_writes_no_identifier(planted: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, uids = planted
    modalities = sorted({way.partition(":")[0] for way in every_way()} - {"generic"})
    pack = make_pack(tmp_path / "pack", adapters=every_way(), modalities=modalities)
    table = tmp_path / "table.csv"
    names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    said = {"wsi": "pathology", "mr": "mri", "ecg": "ecg", "es": "endoscopy"}
    lines = [f"{name},{said[Path(name).parent.name]}" for name in names if Path(name).parent.name in said]
    table.write_text("file,modality\n" + "\n".join(lines) + "\n")
    run = score(
        root,
        tmp_path / "out",
        model=pack,
        table=table,
        prompt="a heart",
        report={"report_paths": True},
        settings=SETTINGS,
    )
    assert run.counts["scored"] >= 8
    assert run.counts["failed"] >= 4
    for where, body in _written(tmp_path / "out"):
        _nothing_in(where, body, uids)


def test_the_commands_print_no_identifier(
    planted: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, uids = planted
    for arguments in (
        ["scan", str(root)],
        ["scan", str(root), "--json"],
        ["view", str(root / "ct"), "--out", str(tmp_path / "ct.png")],
        ["view", str(root / "us/loop.dcm"), "--out", str(tmp_path / "us.png"), "--json"],
        ["view", str(root / "ecg/rhythm.hea"), "--out", str(tmp_path / "ecg.png")],
        ["view", str(root / "cut/dx/film.dcm"), "--out", str(tmp_path / "cut.png")],
    ):
        main(arguments)
    printed = capfd.readouterr()
    _nothing_in("standard output", printed.out.encode(), uids)
    _nothing_in("standard error", printed.err.encode(), uids)
    assert (tmp_path / "ct.png").is_file()
    for where, body in _written(tmp_path):
        _nothing_in(where, body, uids)


def test_shards_hold_no_identifier(planted: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, uids = planted
    table = tmp_path / "table.csv"
    table.write_text(
        "file,patient,modality,caption,source,license\n"
        f"{root}/ct,p1,ct,a chest,phantom,CC0\n{root}/us/loop.dcm,p2,ultrasound,a heart,phantom,CC0\n"
        f"{root}/cut/dx/film.dcm,p3,xray,a film,phantom,CC0\n{root}/mr/b.nii,p4,mri,a brain,phantom,CC0\n"
    )
    medclip.shards.build(table, tmp_path / "out", settings=SETTINGS)
    for where, body in _written(tmp_path / "out"):
        _nothing_in(where, body, uids)


def test_an_opened_study_shows_no_identifier(planted: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, uids = planted
    for name in ("ct", "us", "oct", "dx", "ecg"):
        study = open_study(root / name, settings=SETTINGS)
        shown = study._repr_html_() + repr(study) + repr([s.headers for s in study.samples()])
        shown += repr([s.provenance for s in study.samples()])
        _nothing_in(name, shown.encode(), uids)
    stream = io.StringIO()
    for path in sorted((root / "cut").rglob("*.*")):
        try:
            open_study(path, settings=SETTINGS).samples()
        except MedclipError as error:
            stream.write(f"{error}\n")
    _nothing_in("errors", stream.getvalue().encode(), uids)
    view(root / "oct/scan.dcm", tmp_path / "x.png", settings=SETTINGS)


def test_ages_above_90_are_90_in_shards(tmp_path: Path) -> None:
    for number, age in enumerate(("089Y", "90", "94", "103Y")):
        write_png(tmp_path / f"{number}.png", number)
        line = f"{number}.png,p{number},xray,a chest,phantom,CC0,{age}\n"
        with (tmp_path / "table.csv").open("a") as table:
            table.write(line if number else f"file,patient,modality,caption,source,license,age\n{line}")
    rows = read_shard_table(tmp_path / "table.csv").rows
    assert [row.record.age_years for row in rows] == [89, 90, 90, 90]
