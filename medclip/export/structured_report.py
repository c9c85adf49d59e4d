"""A study's answers as a DICOM structured report: TID 1500 with image-level findings, after IHE AI Results.

One Comprehensive 3D SR for a study. Each class of each task is a measurement group (TID 1501): the class as the
finding, the task as its category, the probability as a number from 0 to 1, the model with its version and the hash of
its pack as the algorithm, and the images. A group says how probable a finding is, not that it is there: the report is
preliminary and unverified. Where the pack's card has a threshold for the class, the group has what it makes of the
probability as a qualitative evaluation, positive or negative, and the threshold as a parameter of the algorithm.

A mammography examination that was asked by its views has groups of its breasts (with the breast as finding site) and of
its images (with their view) behind those of the whole.

All images that were read are in Current Requested Procedure Evidence Sequence; viewers do not open a report without
it. They are in the image library (TID 1600), too, where highdicom can describe them. Patient and study are those of
the images' headers. UIDs are made of what the report holds, and times are the caller's: equal calls write equal bytes.
A report that replaces an earlier one names it in Predecessor Documents Sequence.

What all DICOM objects that medclip writes of a study have in common stands at the end: identity, who wrote them, bytes.

Standards: DICOM PS3.3 A.35.13, PS3.16 TID 1500; IHE Radiology, AI Results (AIR), 6.5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medclip.dicom.hashed_uid import hashed_uid
from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.export.earlier_results import newest
from medclip.export.source_headers import Headers
from medclip.export.study_result import OWN_SCHEME, Algorithm, Answer, Coding, Region, StudyResult, coding_of
from medclip.modalities import MODALITIES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLEMENTATION = "2.25.98217650733871254308861337480243214527"
"""Implementation Class UID of medclip."""
_SERIES_NUMBER = 9901
"""Behind the series of any device."""
_MOST_IMAGES = 16
"""Images that every group names; of larger studies the evidence and the library alone name them."""
_VIEWS = {
    "CC": "CranioCaudal",
    "MLO": "MedioLateralObliqueProjection",
    "ML": "MedioLateralProjection",
    "LM": "LateroMedial",
}
"""Names of pydicom's codes for the views of mammograms (CID 4014)."""
DECISION = coding_of("decision at the threshold of the model card", "Decision at the threshold of the model card")


def structured_report(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, earlier: Sequence[bytes] = ()
) -> bytes:
    """Write the answers of a study as a DICOM file.

    Args:
        result: The answers.
        headers: Headers of the study's images; at least one.
        algorithm: Algorithm that answered.
        created: Time at which the report counts as made.
        earlier: Files of earlier reports of the study, which this one replaces.

    Returns:
        The bytes of the file; those of an earlier one that says the same.

    Raises:
        MedclipError: MISSING_CODEC without highdicom.
    """
    require_highdicom()
    return newest(partial(_report, result, headers, algorithm, created), earlier)


def _report(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, replaced: Sequence[Dataset]
) -> bytes:
    import highdicom as hd
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    parts = uid_parts(result, headers, algorithm, created)
    content = repr((result.answers, sorted(str(image.SOPInstanceUID) for image in headers.images)))
    with quiet("highdicom"), quiet("pydicom"):
        report: Any = hd.sr.Comprehensive3DSR(
            evidence=list(headers.images),
            content=_content(result, headers, algorithm)[0],
            series_instance_uid=hashed_uid(*parts, "series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=hashed_uid(*parts, content, *uids_of(replaced)),
            instance_number=1,
            **equipment_of(algorithm, "AI probabilities"),
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=replaced or None,
            content_date=created.date(),
            content_time=created.time(),
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    OWN_SCHEME,
                    name="medclip: tasks and their classes",
                    responsible_organization="The medclip contributors",
                )
            ],
        )
        return bytes_of(report, created)


def require_highdicom() -> None:
    """Refuse to go on without highdicom.

    Raises:
        MedclipError: MISSING_CODEC.
    """
    if find_spec("highdicom") is None:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "a structured report needs highdicom.",
            hint="Run: pip install 'medclip-imaging[dicom]'",
        )


def _content(result: StudyResult, headers: Headers, algorithm: Algorithm) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    images = headers.images

    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hashed_uid("device", algorithm.name, algorithm.version, algorithm.digest),
            name=f"{algorithm.name} {algorithm.version}"[:64],
            manufacturer_name="medclip",
            model_name=algorithm.name[:64],
            serial_number=algorithm.digest[:16],
        ),
    )
    groups = []
    for answer in result.answers:
        named = images if answer.region is None else headers.of_files(answer.region.files)
        groups.append(_group(answer, named if len(named) <= _MOST_IMAGES else (), result, algorithm))
    arguments: dict[str, Any] = {
        "observation_context": hd.sr.ObservationContext(observer_device_context=observer),
        "procedure_reported": _procedure(result, images[0]),
        "imaging_measurements": groups,
        "title": codes.DCM.ImagingMeasurementReport,
    }
    try:
        return hd.sr.MeasurementReport(**arguments, referenced_images=list(images))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a header that does not describe its image
        return hd.sr.MeasurementReport(**arguments)


def _group(answer: Answer, images: Sequence[Dataset], result: StudyResult, algorithm: Algorithm) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    parameters = [f"pack sha256 {algorithm.digest}", f"task {answer.task}, class {answer.name}"]
    if answer.against is not None:
        parameters.append(f"compared with: {answer.against}")
    if answer.decision is not None:
        parameters.append(answer.decision.source)
    if answer.caution:
        parameters.append(f"figure of the model's card: {answer.caution}")
    if answer.unlearned:
        parameters.append(f"not learned: {answer.unlearned}")
    region = answer.region
    place = () if region is None else region.key
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=hashed_uid("tracking", result.key, answer.task, answer.name, *place),
            identifier=f"{answer.task}:{answer.name}{f', {region.in_words}' if region else ''}",
        ),
        finding_category=coded_concept(answer.question),
        finding_type=coded_concept(answer.finding),
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=algorithm.name, version=algorithm.version, parameters=parameters, manufacturer="medclip"
        ),
        finding_sites=_sites(region),
        qualitative_evaluations=_evaluations(answer),
        measurements=[hd.sr.Measurement(name=codes.DCM.Probability, value=answer.probability, unit=codes.UCUM.NoUnits)],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images
        ]
        or None,
    )


def _sites(region: Region | None) -> Any:
    """Return the breast that an answer is of; None for a whole study and where nothing states the side."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if region is None or region.side not in ("R", "L"):
        return None
    side = codes.SCT.Right if region.side == "R" else codes.SCT.Left
    return [hd.sr.FindingSite(anatomic_location=codes.SCT.Breast, laterality=side)]


def _evaluations(answer: Answer) -> Any:
    """Return the view that an answer is of, and what a threshold of the card makes of it; None without either."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    evaluations = []
    if answer.region is not None and (view := _VIEWS.get(answer.region.position or "")):
        evaluations.append(hd.sr.QualitativeEvaluation(name=codes.DCM.ImageView, value=getattr(codes.cid4014, view)))
    if answer.decision is not None:
        value = codes.SCT.Positive if answer.decision.is_positive else codes.SCT.Negative
        evaluations.append(hd.sr.QualitativeEvaluation(name=coded_concept(DECISION), value=value))
    return evaluations or None


def coded_concept(coding: Coding) -> Any:
    """Return a concept as highdicom takes it."""
    import highdicom as hd

    return hd.sr.CodedConcept(value=coding.value, scheme_designator=coding.scheme, meaning=coding.meaning)


def _procedure(result: StudyResult, header: Dataset) -> Any:
    """Return the procedure that is reported on: the header's, or what is true of any study of the modality."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    try:
        (item, *_) = header.ProcedureCodeSequence
        return hd.sr.CodedConcept(
            value=item.CodeValue, scheme_designator=item.CodingSchemeDesignator, meaning=item.CodeMeaning
        )
    except (AttributeError, TypeError, ValueError):
        name, scheme = MODALITIES[result.modality].procedure
        return getattr(getattr(codes, scheme), name)


def uid_parts(result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime) -> tuple[str, ...]:
    """Return what the UIDs of a study's objects are hashed from: the same results have the same ones."""
    study = str(headers.first.StudyInstanceUID)
    return study, result.key, algorithm.digest, algorithm.medclip, created.isoformat()


def uids_of(replaced: Sequence[Dataset]) -> list[str]:
    """Return what the UID of an object is hashed from besides: one that replaces others is another object."""
    return [str(old.SOPInstanceUID) for old in replaced]


def equipment_of(algorithm: Algorithm, description: str) -> dict[str, Any]:
    """Return the arguments of highdicom that say what wrote an object, and how its series is called."""
    version = f"{algorithm.name} {algorithm.version}"
    return {
        "manufacturer": "medclip",
        "manufacturer_model_name": version[:64],
        "software_versions": algorithm.medclip,
        "device_serial_number": algorithm.digest[:16],
        "series_description": f"{description}, {version}"[:64],
        "specific_character_set": "ISO_IR 192",
    }


def bytes_of(dataset: Any, created: datetime) -> bytes:
    """Return the file of an object; what highdicom dates by the clock is dated `created`."""
    from pydicom.valuerep import DA, DT, TM

    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(created.date()), TM(created.time())
    for item in dataset.get("ContributingEquipmentSequence") or ():  # highdicom itself
        item.ContributionDateTime = DT(created.strftime("%Y%m%d%H%M%S"))
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = "MEDCLIP"
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
