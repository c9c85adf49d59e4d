"""A study's answers as a FHIR bundle: a DiagnosticReport, an Observation for each class, and the Device that answered.

R4B and R5, as plain JSON values. The bundle is a transaction that a server takes as it is, and twice without harm: each
resource has an identifier made of what it holds, and is created only where there is none with it. An observation says
how probable a finding is; all are preliminary, since nobody has read the study. Where the pack's card has a threshold
for the class, the observation has it as its reference range, and what it makes of the probability as interpretation.

A mammography examination that was asked by its views has observations of its breasts, which are members of that of the
whole, and of its images, which are members of that of their breast.

Patient, study and accession number are logical references, by the identifiers of the DICOM header: a server that knows
them finds its own. Of a study without a header they are the keyed hashes of the tables.

A report that replaces an earlier one says so by HL7's extensions diagnosticReport-replaces and observation-replaces, by
the identifiers of the earlier resources. It stays preliminary: amended and corrected are words for what was final.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from medclip.dicom.hashed_uid import hashed_uuid
from medclip.export.source_headers import Headers
from medclip.export.study_result import OWN_SCHEME, Algorithm, Answer, Coding, Region, StudyResult
from medclip.modalities import MODALITIES

Release = Literal["R4B", "R5"]

HASHED_PATIENT, HASHED_STUDY = "urn:medclip:hashed-patient", "urn:medclip:hashed-study"
"""Systems of identifiers that are keyed hashes."""
OWN_CODES = "urn:medclip:code"
_SYSTEMS = {"SCT": "http://snomed.info/sct", "RADLEX": "http://www.radlex.org", OWN_SCHEME: OWN_CODES}
_V2 = "http://terminology.hl7.org/CodeSystem/v2-"
_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_REPLACES = {
    kind: f"http://hl7.org/fhir/StructureDefinition/{name}-replaces"
    for kind, name in (("DiagnosticReport", "diagnosticReport"), ("Observation", "observation"))
}
_UUID = re.compile(r"urn:uuid:[0-9a-f-]{36}")
_BREASTS = {"R": ("73056007", "Right breast structure"), "L": ("80248007", "Left breast structure")}
_CAUTION = "Probabilities that a model returned; no physician has read them. For research; not a medical device."


def fhir_bundle(
    result: StudyResult,
    headers: Headers,
    algorithm: Algorithm,
    created: datetime,
    release: Release = "R4B",
    replaced: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the answers of a study as a bundle.

    Args:
        result: The answers.
        headers: Headers of the study's images; may be none.
        algorithm: Algorithm that answered.
        created: Time at which the report counts as made, with a time zone.
        release: Release of FHIR.
        replaced: Earlier bundles of the study, which this one replaces.

    Returns:
        JSON values.
    """
    earlier = _identifiers(replaced)
    names = _Names(result, algorithm, created, sorted({uuid for uuids in earlier.values() for uuid in uuids}))
    subject, study = _subject(result, headers), _study(result, headers)
    common = {"status": "preliminary", **_ordered(headers)}
    effective = _effective(headers)
    device_id = names.uuid("device", algorithm.digest)
    observations = [
        (
            names.uuid(
                "observation",
                answer.task,
                answer.name,
                str(answer.probability),
                answer.against or "",
                *(answer.region.key if answer.region else ()),
                *_decided(answer),
                *filter(None, (answer.caution, answer.unlearned)),
            ),
            answer,
        )
        for answer in result.answers
    ]
    report_id = names.uuid("report", *(identifier for identifier, _ in observations))
    resources = [(device_id, _device(device_id, algorithm, release))]
    for identifier, answer in observations:
        resources.append(
            (
                identifier,
                {
                    "resourceType": "Observation",
                    **_replaces("Observation", earlier.get(_place_of_observation(_finding(answer)), ())),
                    "identifier": [_identifier(identifier)],
                    **common,
                    "category": [_concept(_OBSERVATION_CATEGORY, "imaging", "Imaging")],
                    "code": _finding(answer),
                    "subject": subject,
                    **effective,
                    "issued": created.isoformat(timespec="seconds"),
                    "valueQuantity": {
                        "value": answer.probability,
                        "unit": "probability",
                        "system": _UCUM,
                        "code": "1",
                    },
                    **_interpretation(answer),
                    **_site(answer),
                    **_notes(answer),
                    "method": {"coding": [_coding(answer.question)], "text": answer.question.meaning},
                    **_members(answer, observations),
                    "derivedFrom": [study],
                    "device": {"reference": f"urn:uuid:{device_id}"},
                },
            )
        )
    facts = MODALITIES[result.modality]
    report = {
        "resourceType": "DiagnosticReport",
        **_replaces("DiagnosticReport", earlier.get("DiagnosticReport", ())),
        "identifier": [_identifier(report_id)],
        **common,
        "category": [_concept(f"{_V2}0074", *facts.fhir_section)],
        "code": _concept(_LOINC, *facts.loinc),
        "subject": subject,
        **effective,
        "issued": created.isoformat(timespec="seconds"),
        "result": [{"reference": f"urn:uuid:{identifier}"} for identifier, _ in observations],
        ("study" if release == "R5" else "imagingStudy"): [study],
        "conclusion": _conclusion(result, algorithm),
    }
    resources.insert(0, (report_id, report))
    return {
        "resourceType": "Bundle",
        "identifier": _identifier(names.uuid("bundle", report_id)),
        "type": "transaction",
        "timestamp": created.isoformat(timespec="seconds"),
        "entry": [_entry(identifier, resource) for identifier, resource in resources],
    }


def bundle_text(bundle: dict[str, Any]) -> str:
    """Write a bundle as text, the same for equal bundles."""
    return json.dumps(bundle, indent=1, ensure_ascii=False) + "\n"


def bundle_digest(bundle: Mapping[str, Any]) -> str:
    """Hash what a bundle says, without when it was written and what its resources are called."""
    text = json.dumps(_without(bundle, "issued", "timestamp"), sort_keys=True)
    return hashlib.sha256(_UUID.sub("", text).encode()).hexdigest()[:16]


def fhir_r4b(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, earlier: Sequence[bytes] = ()
) -> bytes:
    """Encode the answers of a study in R4B; an earlier bundle that says the same is returned as it is."""
    return _encoded(result, headers, algorithm, created, "R4B", earlier)


def fhir_r5(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, earlier: Sequence[bytes] = ()
) -> bytes:
    """Encode the answers of a study in R5; an earlier bundle that says the same is returned as it is."""
    return _encoded(result, headers, algorithm, created, "R5", earlier)


def _encoded(
    result: StudyResult,
    headers: Headers,
    algorithm: Algorithm,
    created: datetime,
    release: Release,
    earlier: Sequence[bytes],
) -> bytes:
    new = fhir_bundle(result, headers, algorithm, created, release)
    digest, study = bundle_digest(new), _study(result, headers)
    replaced: list[Mapping[str, Any]] = []
    same: tuple[bytes, Mapping[str, Any]] | None = None
    for file in earlier:
        with suppress(ValueError, KeyError, TypeError, IndexError, AttributeError):  # a damaged file is none
            old = json.loads(file)
            if study not in [one for r in _resources(old, "Observation") for one in r["derivedFrom"]]:
                continue
            if bundle_digest(_without(old, "extension")) == digest:
                same = file, old
            else:
                replaced.append(old)
    if same is not None:
        file, old = same
        if {uuid for uuids in _identifiers(replaced).values() for uuid in uuids} <= set(_UUID.findall(json.dumps(old))):
            return file
        replaced = [old, *replaced]
    return bundle_text(
        fhir_bundle(result, headers, algorithm, created, release, replaced) if replaced else new
    ).encode()


def _resources(bundle: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    return (e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind)


def _identifiers(bundles: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the identifiers of earlier resources, by what a resource has to be to take their place."""
    known: dict[str, list[str]] = {}
    for bundle in bundles:
        for report in _resources(bundle, "DiagnosticReport"):
            known.setdefault("DiagnosticReport", []).append(report["identifier"][0]["value"])
        for observation in _resources(bundle, "Observation"):
            place = _place_of_observation(observation["code"])
            known.setdefault(place, []).append(observation["identifier"][0]["value"])
    return known


def _place_of_observation(code: Mapping[str, Any]) -> str:
    """Return what two observations of a study have in common of which one replaces the other: finding and region."""
    return f"Observation {code['coding'][0]['code']} {code['text']}"


def _replaces(kind: str, uuids: Sequence[str]) -> dict[str, Any]:
    """Return the extensions that name what a resource replaces."""
    references = [
        {"type": kind, "identifier": {"system": "urn:ietf:rfc:3986", "value": uuid}} for uuid in dict.fromkeys(uuids)
    ]
    return {"extension": [{"url": _REPLACES[kind], "valueReference": r} for r in references]} if references else {}


def _without(value: Any, *keys: str) -> Any:
    """Return JSON values without some keys of objects, at any depth."""
    if isinstance(value, list):
        return [_without(one, *keys) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _without(one, *keys) for key, one in value.items() if key not in keys}


class _Names:
    """Makes the identifiers of a bundle's resources: of what they hold, so that equal ones have equal ones."""

    def __init__(self, result: StudyResult, algorithm: Algorithm, created: datetime, replaced: Sequence[str]) -> None:
        self._parts = (result.key, algorithm.digest, algorithm.medclip, created.isoformat(), *replaced)

    def uuid(self, kind: str, *parts: str) -> str:
        of_study = () if kind == "device" else self._parts
        return str(hashed_uuid("fhir", kind, *of_study, *parts))


def _entry(identifier: str, resource: dict[str, Any]) -> dict[str, Any]:
    kind = resource["resourceType"]
    unique = f"identifier=urn:ietf:rfc:3986|urn:uuid:{identifier}"
    return {
        "fullUrl": f"urn:uuid:{identifier}",
        "resource": resource,
        "request": {"method": "POST", "url": kind, "ifNoneExist": unique},
    }


def _identifier(uuid: str) -> dict[str, Any]:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{uuid}"}


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _coding(coding: Coding) -> dict[str, Any]:
    return {"system": _SYSTEMS[coding.scheme], "code": coding.value, "display": coding.meaning}


def _finding(answer: Answer) -> dict[str, Any]:
    against = "" if answer.against is None else f", compared with: {answer.against}"
    where = "" if answer.region is None else f", {answer.region.in_words}"
    return {"coding": [_coding(answer.finding)], "text": f"Probability of: {answer.finding.meaning}{against}{where}"}


def _decided(answer: Answer) -> tuple[str, ...]:
    decision = answer.decision
    return () if decision is None else (str(decision.threshold), decision.source)


def _interpretation(answer: Answer) -> dict[str, Any]:
    """Return what the card's threshold makes of a probability, and the threshold; nothing where it has none."""
    decision = answer.decision
    if decision is None:
        return {}
    code = ("POS", "Positive") if decision.is_positive else ("NEG", "Negative")
    limit = {"value": decision.threshold, "unit": "probability", "system": _UCUM, "code": "1"}
    text = f"Positive from here on: {decision.source}"
    return {"interpretation": [_concept(_INTERPRETATION, *code)], "referenceRange": [{"high": limit, "text": text}]}


def _notes(answer: Answer) -> dict[str, Any]:
    """Return what must stand beside a number: where its figure holds, and why it is worth little."""
    texts = [f"The figure on the model's card holds {answer.caution}."] * bool(answer.caution)
    texts += [f"Not learned: {answer.unlearned}."] * bool(answer.unlearned)
    return {"note": [{"text": text} for text in texts]} if texts else {}


def _site(answer: Answer) -> dict[str, Any]:
    side = None if answer.region is None else _BREASTS.get(answer.region.side or "")
    return {} if side is None else {"bodySite": _concept(_SYSTEMS["SCT"], *side)}


def _members(answer: Answer, observations: Sequence[tuple[str, Answer]]) -> dict[str, Any]:
    """Return the observations that belong below one: of an examination its breasts, of a breast its images."""
    members = [
        {"reference": f"urn:uuid:{identifier}"}
        for identifier, other in observations
        if (other.task, other.name) == (answer.task, answer.name) and _is_below(other.region, answer.region)
    ]
    return {"hasMember": members} if members else {}


def _is_below(region: Region | None, above: Region | None) -> bool:
    if region is None or (above is not None and above.level == "view"):
        return False
    if above is None:
        return region.level == "breast" or region.side is None
    return region.level == "view" and region.side == above.side


def _device(identifier: str, algorithm: Algorithm, release: Release) -> dict[str, Any]:
    named = (
        {"name": [{"value": algorithm.name, "type": "user-friendly-name"}]}
        if release == "R5"
        else {"deviceName": [{"name": algorithm.name, "type": "user-friendly-name"}]}
    )
    pack = {"system": "urn:medclip:pack-sha256", "value": algorithm.digest}
    return {
        "resourceType": "Device",
        "identifier": [_identifier(identifier), pack],
        "manufacturer": "medclip",
        **named,
        "version": [{"value": algorithm.version}],
    }


def _subject(result: StudyResult, headers: Headers) -> dict[str, Any]:
    number = str(headers.first.PatientID).strip() if headers.images else ""
    if not number:
        hashed = result.patient or result.key
        return {"type": "Patient", "identifier": {"system": HASHED_PATIENT, "value": hashed}}
    identifier: dict[str, Any] = {"type": _concept(f"{_V2}0203", "MR", "Medical record number"), "value": number}
    if issuer := str(headers.first.get("IssuerOfPatientID") or "").strip():
        identifier["assigner"] = {"display": issuer}
    return {"type": "Patient", "identifier": identifier}


def _study(result: StudyResult, headers: Headers) -> dict[str, Any]:
    identifier = (
        {"system": "urn:dicom:uid", "value": f"urn:oid:{headers.first.StudyInstanceUID}"}
        if headers.images
        else {"system": HASHED_STUDY, "value": result.key}
    )
    return {"type": "ImagingStudy", "identifier": identifier}


def _ordered(headers: Headers) -> dict[str, Any]:
    number = str(headers.first.AccessionNumber).strip() if headers.images else ""
    if not number:
        return {}
    accession = {"type": _concept(f"{_V2}0203", "ACSN", "Accession ID"), "value": number}
    return {"basedOn": [{"type": "ServiceRequest", "identifier": accession}]}


def _effective(headers: Headers) -> dict[str, Any]:
    """Return the day of the study; its time has no zone in DICOM, and FHIR takes none without."""
    day = str(headers.first.StudyDate) if headers.images else ""
    return {"effectiveDateTime": f"{day[:4]}-{day[4:6]}-{day[6:]}"} if len(day) == 8 and day.isdigit() else {}


def _conclusion(result: StudyResult, algorithm: Algorithm) -> str:
    parts = [f"{algorithm.name} {algorithm.version}. {_CAUTION}"]
    if result.num_failed:
        parts.append(f"{result.num_failed} of {len(result.files) + result.num_failed} files could not be read.")
    if result.note:
        parts.append(f"Noted of the recording: {result.note.replace('_', ' ')}.")
    return " ".join(parts)
