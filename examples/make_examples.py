"""Build examples/studies from openly licensed public images. Run once by a maintainer; the results are committed.

Usage: python examples/make_examples.py SHARED_DATA RETINA_JPG

The patient fields in the DICOM headers are invented. Sources and licences are written to examples/sources.csv.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

HERE = Path(__file__).parent
NIH = "NIH ChestX-ray14 (NIH Clinical Center), Wang et al., CVPR 2017"
NIH_LICENCE = "no restriction on use; citation and acknowledgement of the NIH Clinical Center asked"
CBIS = "CBIS-DDSM (Lee et al., Scientific Data 2017), case P_00173 of the mass test set, averaged down"
BREAST = "BrEaST (Pawlowska et al., Scientific Data 2024), at most 288 px"
PTBXL = "PTB-XL (Wagner et al., Scientific Data 2020; PhysioNet), 100 Hz"
VQA = "VQA-RAD (Lau et al., Scientific Data 2018), the margins cut off"
UIDS = {
    "dx": "1.2.840.10008.5.1.4.1.1.1.1",
    "cr": "1.2.840.10008.5.1.4.1.1.1",
    "mg": "1.2.840.10008.5.1.4.1.1.1.2",
    "sr": "1.2.840.10008.5.1.4.1.1.88.11",
}
ROOT_UID = "1.2.826.0.1.3680043.10.1471."  # made from a fixed string each time, so that the files are reproducible


def uid(name: str) -> UID:
    """A UID that depends on the name only."""
    return pydicom.uid.generate_uid(prefix=ROOT_UID, entropy_srcs=["medclip example", name])


def header(kind: str, study: str, name: str, patient: tuple[str, str, str, str]) -> FileDataset:
    """A header with invented patient fields; patient = (name, id, birth date, sex)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(UIDS[kind])
    meta.MediaStorageSOPInstanceUID = uid(f"{study}/{name}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    ds = FileDataset(name, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(study), uid(f"{study}/series/{name}")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = patient
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20240311", "101500", "EX" + patient[1][-4:]
    ds.InstitutionName, ds.Manufacturer = "Example Hospital", "Example Imaging"
    ds.Modality = {"dx": "DX", "cr": "CR", "mg": "MG", "sr": "SR"}[kind]
    ds.BurnedInAnnotation = "NO"
    return ds


def pixels(ds: FileDataset, array: np.ndarray, bits: int, photometric: str) -> None:
    """Attach grey pixels, RLE compressed."""
    ds.Rows, ds.Columns = array.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8 if bits == 8 else 16, bits, bits - 1, 0
    ds.PixelData = array.astype(np.uint8 if bits == 8 else np.uint16).tobytes()
    ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def chest(data: Path, out: Path) -> list[dict[str, str]]:
    """Two chest X-ray DICOM files (plain, and 12-bit MONOCHROME1 with a window) and two without a header."""
    # Of the held-out films without findings, one that the model scores near the middle of them all.
    plain_film(data / "nih_cxr/images/00003680_000.jpg", "chest_pa", "EX-0001", out)

    grey = np.asarray(Image.open(data / "nih_cxr/images/00001301_039.jpg").convert("L").resize((384, 384)))
    ds = header("cr", "chest_ap", "chest_ap", ("Example^Berta", "EX-0002", "19670730", "F"))
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "AP"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = 2040, 4080
    pixels(ds, 4095 - grey.astype(np.uint16) * 16, 12, "MONOCHROME1")
    save(ds, out / "chest_ap.dcm")

    shutil.copy(data / "nih_cxr/images/00006298_003.jpg", out / "chest_without_header.jpg")
    shutil.copy(data / "covid_cxr/images/c3829ecb.jpg", out / "chest_portable.jpg")
    nih = {"source": NIH, "licence": NIH_LICENCE}
    hannover = "COVID-19 image repository, Hannover Medical School, doi 10.6084/m9.figshare.12275009"
    return [
        {"file": "chest_pa.dcm", "training_patient": "nih:3680"} | nih,
        {"file": "chest_ap.dcm", "training_patient": "nih:1301"} | nih,
        {"file": "chest_without_header.jpg", "training_patient": "nih:6298"} | nih,
        {"file": "chest_portable.jpg", "training_patient": "covid:g0468", "source": hannover, "licence": "CC BY 3.0"},
    ]


def plain_film(image: Path, name: str, patient: str, out: Path) -> None:
    """An 8-bit digital radiograph."""
    ds = header("dx", name, name, ("Example^Adam", patient, "19580214", "M"))
    ds.BodyPartExamined, ds.ViewPosition, ds.ImageLaterality = "CHEST", "PA", "U"
    ds.PresentationIntentType, ds.PixelSpacing = "FOR PRESENTATION", [0.8, 0.8]
    pixels(ds, np.asarray(Image.open(image).convert("L")), 8, "MONOCHROME2")
    save(ds, out / f"{name}.dcm")


def mammography(data: Path, out: Path) -> list[dict[str, str]]:
    """One exam of four views, with the headers of a digital unit."""
    made = []
    folder = data / "mammo_4view/dicom/sfm-benign-0"
    for r in csv.DictReader((data / "mammo_4view/labels.csv").open()):
        if r["case"] != "sfm-benign-0":
            continue
        source = pydicom.dcmread(folder / Path(r["file"]).name).pixel_array
        small = Image.fromarray((source / source.max() * 255).astype(np.uint8)).reduce(2)
        name = f"mammogram_{r['laterality']}_{r['view']}"
        ds = header("mg", "mammogram", name, ("Example^Clara", "EX-0003", "19610102", "F"))
        ds.BodyPartExamined, ds.ImageLaterality, ds.ViewPosition = "BREAST", r["laterality"], r["view"]
        ds.PresentationIntentType = "FOR PRESENTATION"
        pixels(ds, np.asarray(small), 8, "MONOCHROME2")
        save(ds, out / "mammogram" / f"{name}.dcm")
        made.append(
            {"file": f"mammogram/{name}.dcm", "training_patient": "mammo4:sfm-benign-0", "source": CBIS}
            | {"licence": "CC BY 3.0"}
        )
    return made


def others(data: Path, retina: Path, out: Path) -> list[dict[str, str]]:
    """A brain MRI slice, a fundus photograph, a volume, tissue, a report without pixels and a broken file."""
    volume = nib.as_closest_canonical(nib.load(data / "field_dev/nifti/niivue/FLAIR.nii.gz"))
    axial = np.rot90(np.asarray(volume.dataobj)[:, :, 46])  # a level that the lesion of this brain does not reach
    Image.fromarray(axial.astype(np.uint8)).save(out / "brain_flair.png")
    Image.open(retina).convert("RGB").reduce(3).save(out / "fundus.jpg", quality=88)
    shutil.copy(data / "field_dev/nifti/niivue/minimal.nii.gz", out / "volume.nii.gz")
    slide = data / "field_dev/wsi/svs/CMU-1-Small-Region.svs"
    import openslide

    tissue = openslide.OpenSlide(str(slide)).read_region((900, 1300), 0, (256, 256)).convert("RGB")
    tissue.save(out / "tissue.jpg", quality=85)

    ds = header("sr", "chest_pa", "report", ("Example^Adam", "EX-0001", "19580214", "M"))
    ds.CompletionFlag, ds.VerificationFlag, ds.ValueType, ds.ContinuityOfContent = (
        "COMPLETE",
        "UNVERIFIED",
        "CONTAINER",
        "SEPARATE",
    )
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "18782-3", "LN", "Radiology Study observation"
    ds.ConceptNameCodeSequence = [title]
    save(ds, out / "report.dcm")
    plain_film(data / "nih_cxr/images/00001299_000.jpg", "truncated", "EX-0004", out)
    whole = (out / "truncated.dcm").read_bytes()
    (out / "truncated.dcm").write_bytes(whole[: len(whole) // 3])

    blank = {"training_patient": ""}
    return [
        {"file": "brain_flair.png", "source": "niivue demo volume FLAIR, one slice", "licence": "BSD-2-Clause"} | blank,
        {"file": "fundus.jpg", "source": "Mikael Haggstrom, Wikimedia Commons, reduced", "licence": "CC0"} | blank,
        {"file": "volume.nii.gz", "source": "niivue test volume minimal", "licence": "BSD-2-Clause"} | blank,
        {"file": "tissue.jpg", "source": "OpenSlide test slide CMU-1, one tile", "licence": "CC0"} | blank,
        {"file": "report.dcm", "source": "made by make_examples.py", "licence": "CC0"} | blank,
        {"file": "truncated.dcm", "training_patient": "nih:1299", "source": f"{NIH}; cut short on purpose"}
        | {"licence": NIH_LICENCE},
    ]


def scanned(data: Path, out: Path) -> list[dict[str, str]]:
    """A breast ultrasound image, an ECG record, and a CT slice whose margins with names are cut off."""
    shutil.copyfile(data / "breast_us/images/case008.jpg", out / "breast_ultrasound.jpg")
    (out / "ecg").mkdir()
    for suffix in (".hea", ".dat"):
        shutil.copyfile(data / f"ptbxl/records/00223_lr{suffix}", out / f"ecg/00223_lr{suffix}")
    # Its questions do not state the modality, so it is in no table that anything is trained on.
    slice_of_ct = Image.open(data / "vqa_rad/images/synpic24319.jpg").convert("L")
    slice_of_ct.crop((0, 30, slice_of_ct.width, 228)).save(out / "abdomen_ct.png", optimize=True)
    record = {"training_patient": "ptbxl:16039", "source": PTBXL, "licence": "CC BY 4.0"}
    return [
        {"file": "abdomen_ct.png", "training_patient": "vqa_rad:synpic24319", "source": VQA, "licence": "CC0"},
        {"file": "breast_ultrasound.jpg", "training_patient": "breast_us:8", "source": BREAST, "licence": "CC BY 4.0"},
        {"file": "ecg/00223_lr.hea"} | record,
        {"file": "ecg/00223_lr.dat"} | record,
    ]


def save(ds: FileDataset, path: Path) -> None:
    """Write one DICOM file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def main(shared_data: str, retina: str) -> None:
    """Build every study anew."""
    data, out = Path(shared_data), HERE / "studies"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    table = chest(data, out) + mammography(data, out) + others(data, Path(retina), out) + scanned(data, out)
    with (HERE / "sources.csv").open(newline="", encoding="utf-8") as f:
        kept = [r for r in csv.DictReader(f) if not r["file"].startswith("studies/")]  # of make_real_sets.py
    table = kept + [r | {"file": f"studies/{r['file']}"} for r in table]
    with (HERE / "sources.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, ["file", "source", "licence", "training_patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(table, key=lambda r: r["file"]))
    for path in sorted(out.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:>8} {path.relative_to(out)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
