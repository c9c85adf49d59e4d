"""The verb `export`: results of a run in the forms that other systems take; `score --export` writes them as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import Limits
from medclip.api.groups.running import Device, Machine, Recipe, RunFolder, Told, settings_of
from medclip.errors import MedclipError, Reason
from medclip.export.formats import FORMATS, check_formats, formats_of
from medclip.lazy import import_name
from medclip.options import option, options
from medclip.verbs import verb
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.export.fhir_server import FhirServer
    from medclip.export.results_folder import Exported, ResultsFolder
    from medclip.files.dicomweb.server import DicomwebServer
    from medclip.files.dimse.sender import DimseSender
    from medclip.runs.call import Call

EXPORT_FORM = "FORM[=PLACE]"
RESULTS = "results"
"""Folder of results in the output folder, where nobody named another."""


@dataclass(frozen=True)
class Exports:
    """What goes to others, and where."""

    tables: tuple[str, ...] = ()
    """Forms of whole tables."""
    forms: tuple[str, ...] = ()
    """Forms of single studies."""
    named: str | None = None
    """What heat maps are of; None for the most probable finding."""
    folder: str | None = None
    """Where they are written; None for a folder in the output folder."""
    store: str | None = None
    """PACS that DICOM results are sent to."""
    post: str | None = None
    """FHIR server that bundles are sent to."""
    posted: tuple[str, ...] = ()
    """The form of those bundles."""

    @property
    def has_results(self) -> bool:
        """Whether results of single studies are written."""
        return bool(self.forms)

    @property
    def has_maps(self) -> bool:
        """Whether heat maps are among them."""
        return any(FORMATS[form].needs_map for form in self.forms)

    def write_tables(self, folder: Path) -> None:
        """Write the tables of a run in their forms."""
        for form in self.tables:
            import_name(FORMATS[form].target)(folder)


def parse_exports(texts: str | Sequence[str]) -> Exports:
    """Read FORM, FORM=DIR, FORM=dicomwebs://HOST/PATH, FORM=dicom://AET@HOST:PORT and, of FHIR, FORM=https://HOST/PATH.

    Raises:
        MedclipError: WRONG_USE for a form that there is not, and for results that would go to two folders or two PACS.

    Example:
        >>> parse_exports(["csv", "sr=dicomwebs://pacs/dicom-web"]).store
        'dicomwebs://pacs/dicom-web'
    """
    if not texts:
        return Exports()
    from medclip.export.fhir_server import is_fhir
    from medclip.files.dicomweb.server import is_dicomweb
    from medclip.files.dimse.address import is_dimse

    tables = formats_of("tables")
    forms: list[str] = []
    placed: set[str] = set()
    named, places, stores, posts = None, dict[str, None](), dict[str, None](), dict[str, None]()
    for text in (texts,) if isinstance(texts, str) else tuple(texts):
        what, is_equal, place = str(text).partition("=")
        form, _, of = what.partition(":")
        check_formats((form,), "tables", "study")
        if of and not FORMATS[form].needs_map:
            raise MedclipError(Reason.WRONG_USE, f"what is drawn is named of heat maps alone, not of {form}.")
        if is_equal and form in tables:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{FORMATS[form].title} lie beside the others.",
                hint="Leave the place out of that form.",
            )
        if is_equal and not place:
            raise MedclipError(
                Reason.WRONG_USE,
                "a format of results is named and no folder for them.",
                hint=f"Name it as {form}=DIR, or leave the sign out: they are written into the output folder then.",
            )
        _refuse_server(form, place)
        forms.append(form)
        named = of or named
        if place:
            is_pacs = is_dicomweb(place) or is_dimse(place)
            (posts if is_fhir(place) else stores if is_pacs else places)[str(place)] = None
            placed.add(form)
    homeless = [form for form in forms if form not in tables and form not in placed]
    if places and homeless:
        raise MedclipError(
            Reason.WRONG_USE,
            f"results go to one folder in a call, and none is named for {homeless[0]}.",
            hint=f"Write {homeless[0]}={next(iter(places))}, or write that form afterwards: medclip export.",
        )
    posted = tuple(form for form in dict.fromkeys(forms) if posts and FORMATS[form].fhir_version)
    if len(posted) > 1:
        raise MedclipError(
            Reason.WRONG_USE,
            "a FHIR server speaks one version of FHIR.",
            hint=f"Send {' or '.join(posted)}, whichever it speaks.",
        )
    for several, what in ((places, "one folder"), (stores, "one PACS"), (posts, "one FHIR server")):
        if len(several) > 1:
            raise MedclipError(Reason.WRONG_USE, f"results go to {what} in a call, not to {len(several)}.")
    of_tables, of_studies = (
        tuple(dict.fromkeys(f for f in forms if (f in tables) is wanted)) for wanted in (True, False)
    )
    folder, store, post = (next(iter(several), None) for several in (places, stores, posts))
    return Exports(of_tables, of_studies, named, folder, store, post, posted)


def _refuse_server(form: str, place: str) -> None:
    """Refuse a server that does not take a form."""
    from medclip.export.fhir_server import is_fhir
    from medclip.files.dicomweb.server import is_dicomweb
    from medclip.files.dimse.address import is_dimse

    if (is_dicomweb(place) or is_dimse(place)) and not FORMATS[form].is_dicom:
        raise MedclipError(
            Reason.WRONG_USE, "a PACS takes DICOM, and no form of results is that.", hint=f"Send {_DICOM}."
        )
    if is_fhir(place) and not FORMATS[form].fhir_version:
        hint = "A PACS is named as dicomwebs://HOST/PATH." if FORMATS[form].is_dicom else "Name a folder."
        raise MedclipError(Reason.WRONG_USE, f"a FHIR server does not take {form}.", hint=hint)


def replaced_option(heading: str = "") -> Any:
    """Declare the folder of earlier results."""
    return option(
        "Earlier results that these replace, as their folder or that of their run: reports name those of the same "
        "study. With the folder that these go to, too, they take their place.",
        default=None,
        form="DIR",
        place=True,
        beside=True,
        heading=heading,
    )


_OF_RUNS = formats_of("tables", "study")
_FORMS = list_of([f"{name} ({form.about})" if form.about else name for name, form in _OF_RUNS.items()], "or")
_DICOM = list_of([name for name, form in _OF_RUNS.items() if form.is_dicom], "or")


@options
class ExportOptions(Told, Limits, Recipe, RunFolder, Machine, Device):
    """What `export` is asked."""

    as_: str | Sequence[str] = option(
        f"Form: {_FORMS}. All but {list_of(list(formats_of('tables')))} name patients, as the headers of the images "
        "do.",
        form="FORM",
        often=True,
    )
    to: str | Path | None = option(
        "Folder for them, or PACS that DICOM results are sent to, dicomwebs://HOST/PATH or dicom://AET@HOST:PORT, or "
        "FHIR server that bundles are sent to, https://HOST/PATH. Default: a folder in the run's.",
        default=None,
        form="DIR|URL",
        kind=str,
        often=True,
        place=True,
    )
    replace: str | Path | None = replaced_option()
    images: str | Path | None = option(
        "Folder or file that was scored, where the run does not know it any more.", default=None, form="DIR", place=True
    )


@verb(ExportOptions)
def export(options: ExportOptions) -> Exported:
    """Write the results of a finished run of `medclip score` for other systems, or send them; no score is computed.

    What is there of the same answers already stays as it is, and what a server has is not sent again. A study without a
    DICOM header has no SR; what is returned counts them.

    Returns:
        What was written for single studies, by form, and what was not and why.

    Raises:
        MedclipError: WRONG_USE for a form that there is not, for a run with hashed paths or of embeddings, and for one
            whose images are not where they were; OUTPUT_IN_USE for a folder that holds anything else; MISSING_FILE for
            earlier results that are not there; UNREACHABLE.

    Example:
        >>> import medclip
        >>> medclip.runs.export("nightly", as_="sr").written  # doctest: +SKIP
    """
    from medclip.export.results_folder import Exported
    from medclip.files.output import disk_errors
    from medclip.progress import Silent
    from medclip.reports.score.finished_run import read_finished
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.outputs.results import hashes_of

    place = "" if options.to is None else f"={options.to}"
    named = (options.as_,) if isinstance(options.as_, str) else tuple(options.as_)
    tables = formats_of("tables")
    has_place = any(form not in tables for form in named)  # of tables alone a place is refused
    exports = parse_exports([form if form in tables and has_place else f"{form}{place}" for form in named])
    folder, settings, progress = Path(options.folder), settings_of(options), options.progress or Silent()
    with Ledger(folder, create=False) as known:
        finished = read_finished(known, folder, settings, images=options.images)
    with disk_errors(folder):
        exports.write_tables(folder)
    if not exports.has_results:
        return Exported(folder, {}, {})
    finished.refuse_unread("results for other systems take patient and study from the files")
    drawer = finished.heat_maps(exports.named, options.device, progress) if exports.has_maps else None
    exporting = _exporting(
        exports, folder, finished.path_of, settings, progress, drawer, finished.inputs, options.replace
    )
    with closing(exporting), Ledger(folder) as ledger:
        exporting.write(ledger, finished.pack.card, folder)
        ledger.remember({"finished": hashes_of(folder)})
    assert exporting.facts is not None
    return Exported(**exporting.facts)


@dataclass
class Exporting:
    """Writes and sends results, while a run goes on and at its end."""

    exports: Exports
    results: ResultsFolder | None = None
    store: DicomwebServer | DimseSender | None = None
    post: FhirServer | None = None
    sink: Callable[..., Any] | None = None
    """Returns what writes results while the run goes on."""
    progress: Any = None
    facts: dict[str, Any] | None = field(default=None)
    """What was written, once it is."""

    def write(self, ledger: Any, card: Any, folder: Path) -> None:
        """Write what is lacking of a complete run, and send what a PACS does not have."""
        from medclip.export.running_results import store_results

        self.exports.write_tables(folder)
        if self.results is None:
            return
        exported = self.results.write(ledger, card, folder)
        if self.store is not None:
            stored = store_results(self.results.folder, self.store, self.progress)
            exported = replace(exported, stored=stored.to_json())
        if self.post is not None:
            posted = store_results(
                self.results.folder, self.post, self.progress, self.exports.posted, to="the FHIR server"
            )
            exported = replace(exported, posted=posted.to_json())
        self.facts = exported.to_json()

    def close(self) -> None:
        """Send nothing more."""
        for server in (self.store, self.post):
            if server is not None:
                server.close()


def begin_exports(exports: Exports, inputs: Any, call: Call, earlier: str | Path | None = None) -> Exporting:
    """Return what writes and sends results of a call, once it is sure that it can.

    Args:
        exports: Forms and places that are wanted.
        inputs: Files of the call: `medclip.api.run_arguments.Inputs`.
        call: The call.
        earlier: Folder of earlier results, which these replace.

    Raises:
        MedclipError: WRONG_USE, MISSING_FILE, OUTPUT_IN_USE, MISSING_CODEC; UNREACHABLE for a server that does not
            answer.
    """
    from medclip.api.report import check_explain, heat_maps_of
    from medclip.export.running_results import RunningResults, StoreNote
    from medclip.files.dicomweb.spool import DicomwebFiles
    from medclip.reports.score.heat_maps import TOP

    if not exports.has_results:
        return Exporting(exports)
    drawer = None
    if exports.has_maps:
        named = exports.named or TOP
        unread = "" if call.given is None else "images are given one by one"
        check_explain(named, unread, call.model, call.options)
        drawer = heat_maps_of(call, named)
    remote = call.remote
    read_from = remote.header_of if isinstance(remote, DicomwebFiles) else partial(_place, inputs.root, inputs.given)
    is_elsewhere = inputs.given is not None or remote is not None
    scored = {} if is_elsewhere else {"what is scored": inputs.root}
    exporting = _exporting(exports, call.folder, read_from, call.settings, call.progress, drawer, scored, earlier)
    assert exporting.results is not None
    # A study of a PACS is whole when it is scored. One of a folder may have more files in a folder that comes later,
    # and what was sent is not taken back: it is sent at the end.
    stores = []
    if isinstance(remote, DicomwebFiles):
        folder = exporting.results.folder
        stores += [] if exporting.store is None else [StoreNote(folder, exporting.store)]
        stores += [] if exporting.post is None else [StoreNote(folder, exporting.post, exports.posted)]
    exporting.sink = partial(RunningResults, exporting.results, stores=stores, close=exporting.close)
    return exporting


def _exporting(
    exports: Exports,
    folder: Path,
    path_of: Callable[[str], Path],
    settings: Any,
    progress: Any,
    drawer: Any,
    inputs: Mapping[str, Path],
    earlier: str | Path | None,
) -> Exporting:
    """Return what writes into a folder of results, and the servers, which are asked whether they answer."""
    from medclip.api.run_arguments import path_of as path_named
    from medclip.export import fhir_server
    from medclip.export.earlier_results import earlier_folder
    from medclip.export.results_folder import ResultsFolder
    from medclip.files.dicomweb.server import FEW_PAUSES_S

    store = None if exports.store is None else _store_of(exports.store)
    post = None
    if exports.post is not None:
        place_to_post = fhir_server.address_of(exports.post)
        post = fhir_server.FhirServer(place_to_post, FORMATS[exports.posted[0]].fhir_version)
    place = folder / RESULTS if exports.folder is None else path_named(exports.folder, "the folder of results")
    replaced = None if earlier is None else earlier_folder(path_named(earlier, "the folder of earlier results"))
    results = ResultsFolder(place, exports.forms, path_of, settings, progress, drawer, replaced)
    if place.resolve() == folder.resolve():
        raise MedclipError(
            Reason.WRONG_USE,
            "this is the output folder; results for other systems lie in one of their own.",
            where=place,
            hint="Name another folder, such as one in it.",
        )
    results.check({} if place.resolve().is_relative_to(folder.resolve()) else inputs)
    exporting = Exporting(exports, results, store, post, progress=progress)
    try:
        for server in (store, post):
            if server is not None:
                server.check(FEW_PAUSES_S)  # a wrong address is known before the night, and not behind it
    except BaseException:
        exporting.close()
        raise
    return exporting


def _store_of(address: str) -> DicomwebServer | DimseSender:
    """Return what sends to an address, by STOW or by C-STORE."""
    from medclip.files.dicomweb.server import DicomwebServer, address_of
    from medclip.files.dimse.address import entity_of, is_dimse
    from medclip.files.dimse.sender import DimseSender

    return DimseSender(entity_of(address)) if is_dimse(address) else DicomwebServer(address_of(address))


def _place(root: Path, given: Sequence[Any] | None, name: str) -> Path:
    """Return where a file of the tables lies."""
    from medclip.files.discover import name_of_spelled

    if given is not None:
        return next((ref.path for ref in given if ref.name == name), Path(name))
    return root / name_of_spelled(name) if root.is_dir() else root
