"""What is said of each modality anywhere in medclip: names, codes, words, colours. How its files are read is not here.

One row is one modality; the lists of tables, headers, captions, stress tests and exports are read from the rows. Its
reader is a row of `ADAPTERS` in `medclip/adapters/registry.py`. A package of its own brings a modality by two entry
points of one name: a `ModalityFacts` in the group medclip.modalities, an adapter in the group medclip.adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medclip.lazy import Table

Pair = Literal["breast", "eye"]


@dataclass(frozen=True)
class ModalityFacts:
    """One modality. Blank fields are for what nobody says of it."""

    title: str
    """Its name in a sentence."""
    spellings: tuple[str, ...] = ()
    """Other names of it in tables; case, blanks, dashes and underscores do not count."""
    dicom_codes: tuple[str, ...] = ()
    """Codes by which a DICOM header says it (CID 29 of PS3.16); tables may write them too."""
    text_words: str = ""
    """Regular expression of the words by which a lower-case text names it."""
    also_called: tuple[str, ...] = ()
    """Other modalities whose words fit it too: a mammogram is an X-ray of the breast."""
    in_colour: bool | None = None
    """True: always, so that a grey image is of it only where somebody says so (`has_colours` sees colours in 319 of 320
    dermoscopy images of ISIC 2017, and in 322 of 324 of stained tissue of GlaS). False: never, so that an image in
    colour is of it only where a table's row says so of that very file. None: either."""
    paired_organ: Pair | None = None
    """Organ of which one image shows one side."""
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Phrases of captions by view; none for a view that the task `chest_xray_view` has phrases for."""
    image_phrases: tuple[str, ...] = ()
    """How captions name an image, with an article; of a modality that the task `modality` does not have."""
    corruptions: str = ""
    """Data set of MedMNIST-C whose strengths its corruptions have; none where they would make no sense."""
    corruptions_of: str = ""
    """What that data set shows, where it is of another modality."""
    procedure: tuple[str, str] = ("ImagingProcedure", "SCT")
    """Name and scheme of pydicom's code for the procedure that a DICOM report is about, where the header has none."""
    fhir_section: tuple[str, str] = ("RAD", "Radiology")
    """Code and display of the diagnostic service (HL7 v2 table 0074)."""
    loinc: tuple[str, str] = ("18748-4", "Diagnostic imaging study")
    """Code and display of a report of it."""


MODALITIES: Table[ModalityFacts] = Table(
    "medclip.modalities",
    {
        "xray": ModalityFacts(
            "X-ray",
            ("X-rays", "XR", "CXR", "chest X-ray", "radiograph", "radiography", "plain film", "DR", "RX"),
            ("CR", "DX"),
            r"\b(?:x-?rays?|(?:teleo?)?radiogra\w+|plain films?|roentgen\w*)\b",
            in_colour=False,
            views={"AP": (), "PA": (), "LATERAL": ()},
            corruptions="pneumoniamnist",
            procedure=("XRUnspecifiedBodyRegion", "cid100"),
        ),
        "mammography": ModalityFacts(
            "mammography",
            ("MMG", "mammogram", "mammo", "FFDM"),
            ("MG",),
            r"\b(?:mammogra\w+|tomosynthesis)\b",
            also_called=("xray",),
            in_colour=False,
            paired_organ="breast",
            views={
                "CC": ("CC view", "craniocaudal view", "craniocaudal projection", "CC projection"),
                "MLO": (
                    "MLO view",
                    "mediolateral oblique view",
                    "mediolateral oblique projection",
                    "oblique view",
                    "MLO projection",
                ),
                "ML": ("ML view", "mediolateral view"),
                "LM": ("LM view", "lateromedial view"),
            },
            corruptions="pneumoniamnist",
            corruptions_of="chest X-rays",
            procedure=("Mammography", "SCT"),
        ),
        "ct": ModalityFacts(
            "CT",
            ("CT scan", "CAT scan", "computed tomography", "CCT"),
            ("CT",),
            r"\b(?:ct|computed tomogra\w+|hounsfield)\b",
            also_called=("other",),
            in_colour=False,
            corruptions="organamnist",
            procedure=("CTUnspecifiedBodyRegion", "cid100"),
        ),
        "mri": ModalityFacts(
            "MRI",
            ("MRT", "MR imaging", "MRI scan", "magnetic resonance", "magnetic resonance imaging"),
            ("MR",),
            r"\b(?:mri?|magnetic resonance|t[12](?:-weighted)?|flair)\b",
            in_colour=False,
            corruptions="organamnist",
            corruptions_of="CT slices",
            procedure=("MRIUnspecifiedBodyRegion", "cid100"),
        ),
        "ultrasound": ModalityFacts(
            "ultrasound",
            ("USG", "ultrasonography", "sonography", "sonogram", "echo", "echocardiography"),
            ("US", "IVUS", "BMUS"),
            r"\b(?:ultraso\w+|sonogra\w+|echocardio\w+|echograph\w+|doppler)\b",
            corruptions="breastmnist",
            procedure=("DiagnosticUltrasonography", "SCT"),
        ),
        "pathology": ModalityFacts(
            "pathology",
            ("WSI", "whole-slide image", "histopathology", "histology", "H&E", "slide"),
            ("SM", "GM"),
            r"\b(?:histo\w*patholog\w+|histolog\w+|cytolog\w+|microscop\w+|h&e|stain\w*|slides?)\b",
            in_colour=True,
            corruptions="pathmnist",
            fhir_section=("SP", "Surgical Pathology"),
            loinc=("60567-5", "Comprehensive pathology report panel"),
        ),
        "fundus": ModalityFacts(
            "fundus",
            ("CFP", "fundus photo", "fundus photograph", "fundus photography", "colour fundus", "color fundus"),
            ("OP",),
            r"\b(?:fundus|fundoscop\w+|ophthalmoscop\w+)\b",
            paired_organ="eye",
            corruptions="retinamnist",
        ),
        "dermatology": ModalityFacts(
            "dermatology",
            ("dermoscopy", "dermatoscopy"),
            ("DMS",),
            r"\b(?:dermo?scop\w+|dermato?scop\w+)\b",
            in_colour=True,
            corruptions="dermamnist",
        ),
        "endoscopy": ModalityFacts(
            "endoscopy",
            ("colonoscopy", "gastroscopy"),
            ("ES",),
            r"\b(?:\w*endoscop\w+|colonoscop\w+|gastroscop\w+|bronchoscop\w+)\b",
            in_colour=True,
            corruptions="dermamnist",
            corruptions_of="dermoscopic images",
        ),
        "oct": ModalityFacts(
            "OCT",
            ("optical coherence tomography",),
            ("OPT", "OCT"),
            r"\b(?:oct|optical coherence)\b",
            also_called=("other", "fundus"),
            paired_organ="eye",
            corruptions="octmnist",
        ),
        "ecg": ModalityFacts(
            "ECG",
            ("EKG", "electrocardiogram", "12-lead ECG"),
            ("ECG",),
            r"\b(?:ecgs?|ekgs?|\w*electrocardio\w+)\b",
            fhir_section=("EC", "Electrocardiac (e.g., EKG, EEC, Holter)"),
            loinc=("11524-6", "EKG study"),
        ),
    },
)
"""By name, in the order of lists."""
