"""`medclip models`: list, show, cite, verify, import and export model packs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options
from medclip.errors import printable

if TYPE_CHECKING:
    from medclip.models.packs.card import Card
    from medclip.models.packs.pack import PackInfo


def list_command(as_json: options.Json = False) -> None:
    """List the model packs that can be loaded by name.

    Exit code: 0 listed, 2 a pack cannot be read.
    """
    from medclip.cli.table import print_table
    from medclip.models.packs.pack import list_packs

    packs = list_packs()
    if as_json:
        _json([_values(p) for p in packs])
    elif not packs:
        print("No model pack came with this medclip. Packs elsewhere load by their folder.")
    else:
        first = [p.summary.partition(". ")[0] for p in packs]  # the whole of it stands on the card
        rows = [
            (p.name, p.version, _megabytes(p), ", ".join(p.modalities), summary)
            for p, summary in zip(packs, first, strict=True)
        ]
        print_table(("name", "version", "size", "modalities", "summary"), rows)


def show(model: options.Pack = "medclip-mini", as_json: options.Json = False) -> None:
    """Show a pack's card: use, tasks, figures, data, licence, limits.

    Exit code: 0 shown, 2 there is no such pack or it cannot be read.
    """
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.packs.pack import find_pack, pack_card
    from medclip.wording import count

    path, card = find_pack(model), pack_card(model)
    if as_json:
        _json(card.model_dump(mode="json"))
        return
    print(f"{printable(card.name)} {printable(card.version)}  ({_shown(path)})\n")
    for key, text in _facts(path, card).items():
        print_paragraph(f"{key + ':':12} ", text or "not stated")
    if card.adapted is not None:
        from medclip.reports.model_card import adapted_from

        made_of = adapted_from(card.adapted.model_dump())
        base = f"{card.adapted.base} {card.adapted.base_version}"
        print_paragraph(f"{'task:':12} ", f"{card.adapted.task}, {made_of}, on {base}")
    if card.tasks:
        _print_figures(card)
    _print_not_claimed(card)
    if card.held_out is not None:
        held = card.held_out
        size = count(held.num_images, "image")
        size += "" if held.num_patients is None else f" of {count(held.num_patients, 'patient')}"
        print(f"\nFigures on the run's own split {printable(held.split)}: {size}, with 95 % intervals")
        print_table(("task", "metric", "value", "interval", "chance"), [_figure(row) for row in held.rows()])
        for note in held.notes:
            print_paragraph("- ", note)
    if card.data:
        print("\nTraining data")
        rows = [(s.name, str(s.num_images or "?"), str(s.num_patients or "?"), s.licence) for s in card.data]
        print_table(("source", "images", "patients", "licence"), rows)
    if card.limits:
        print("\nLimits")
        for limit in card.limits:
            print_paragraph("- ", limit)
    _print_calibrated(path)


def _print_figures(card: Card) -> None:
    """Print the figures of each task, what holds by source, and the notes."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.packs.card import figure_rows
    from medclip.models.packs.prompt_cautions import unanswered
    from medclip.sample import spoken
    from medclip.text.vocabulary.load import load_task, spoken_names
    from medclip.wording import list_of

    print("\nFigures, with 95 % patient-bootstrap intervals")
    rows = [row for task, about in card.tasks.items() for row in figure_rows(task, about.metrics)]
    names = ("task", "metric", "value", "interval", "chance", "over")
    print_table(names, [(*_figure(row), _size(row)) for row in rows])
    if any(row["num_images"] and row["num_patients"] is None for row in rows):
        print("Where images are counted, nobody knows of how many patients they are.")
    _print_sources(card)
    for task, about in card.tasks.items():
        if about.kinds:
            of = list_of([f"{kind}s" for kind in about.kinds])
            print_paragraph(f"{printable(task)}: ", f"its figures are of {of}, and a run asks it of nothing else.")
        if about.modalities and task in spoken_names() and {*load_task(task).modalities} - {*about.modalities}:
            of = list_of([spoken(name) for name in about.modalities])
            print_paragraph(f"{printable(task)}: ", f"its figures are of {of} images, and a run asks it of no others.")
        if lacking := unanswered(task, about.classes):
            print_paragraph(f"{printable(task)}: ", f"{printable(lacking)}.")
        if about.note:
            print_paragraph(f"{printable(task)}: ", about.note)


def _print_not_claimed(card: Card) -> None:
    """Print what was tried and is not listed, each with its figure and the reason."""
    from medclip.cli.table import print_paragraph
    from medclip.models.packs.card_sources import ALL

    if card.not_claimed:
        print("\nTried and not claimed, with 95 % intervals")
    for task, of in card.not_claimed.items():
        for name, one in of.items():
            print_paragraph(f"{printable(task if name == ALL else f'{task}, {name}')}: ", printable(one.in_words))


def _print_sources(card: Card) -> None:
    """Print what may be said of each task by the sources of its images, and the areas that say it."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.packs.card import figure_rows
    from medclip.models.packs.card_sources import ALL, within_figures
    from medclip.wording import capital, list_of

    if not any(about.sources for about in card.tasks.values()):
        return
    print("\nBy the sources of the images: areas under the ROC curve, with 95 % intervals")
    rows = []
    for task, about in card.tasks.items():
        for name, by_source in about.sources.items():
            what = task if name == ALL else f"{task}, {name}"
            within = [one.in_words for one in within_figures(about.metrics, about.sources, name)]
            figures_within = f" {capital(list_of(within))}." if within else ""
            print_paragraph(f"{printable(what)}: ", f"{by_source.in_words}.{figures_within}")
            sizes = [_sides(one, is_whole=name == ALL) for one in by_source.printed.values()]
            figures = figure_rows(what, by_source.printed)
            rows += [(*_figure(row), size) for row, size in zip(figures, sizes, strict=True)]
    if rows:
        print_table(("task", "pairs", "value", "interval", "chance", "over"), rows)


def _size(row: Mapping[str, Any]) -> str:
    from medclip.wording import count

    images, patients = row["num_images"], row["num_patients"]
    if patients is not None:
        return count(patients, "patient")
    return "" if images is None else count(images, "image")


def _sides(figure: Mapping[str, Any], *, is_whole: bool) -> str:
    """Write how many images an area is between; of a whole task each is on both sides, for another class each."""
    from medclip.wording import count, number

    positive, negative = figure.get("num_positive"), figure.get("num_negative")
    if figure.get("num_patients") is not None:
        return count(figure["num_patients"], "patient")
    if positive is None or negative is None:
        return ""
    if is_whole and positive == negative:
        return count(positive, "image")
    return f"{number(positive)} against {number(negative)}"


def _print_calibrated(pack: Path) -> None:
    from medclip.cli.table import print_paragraph
    from medclip.models.backends.choice import calibrated_here
    from medclip.settings import Settings

    for note in calibrated_here(pack, Settings().home):
        print_paragraph("\nWith --backend auto here: ", note)


def _facts(path: Path, card: Card) -> dict[str, str]:
    """Return what a pack is, in a few lines; its words only where it has none."""
    from medclip.models.packs.pack import read_preprocess
    from medclip.models.packs.words import understands_words

    facts = {
        "summary": card.summary,
        "use": card.intended_use,
        "modalities": ", ".join(card.modalities),
        "licence": _terms(path, card),
        "images": read_preprocess(path).describe(),
    }
    return facts if understands_words(path) else facts | {"words": "none: image only"}


def _terms(path: Path, card: Card) -> str:
    """Return the licence of a pack's weights, and whether it lies in the pack in full."""
    from medclip.models.packs.licences import licence_names
    from medclip.wording import list_of

    names = licence_names(path)
    full = f"in full in {list_of(names)} of the pack" if names else ""
    if not card.licence:
        return full
    return f"{card.licence}; these are the terms of the weights{f', {full}' if full else ''}"


def cite(model: options.Pack = "medclip-mini", as_json: options.Json = False) -> None:
    """Print BibTeX of a pack, of the data that it was trained on, and of what it began with; > refs.bib keeps it.

    Exit code: 0 printed, 2 there is no such pack or it cannot be read.
    """
    from medclip.models.packs.cite import cite as run

    works = run(model)
    if not as_json:
        print(works.bibtex, end="")
        return
    _json(
        {
            "name": works.name,
            "version": works.version,
            "licence": works.licence,
            "sha256": works.digest,
            "citations": [one.model_dump(mode="json") for one in works.citations],
            "notes": list(works.notes),
            "bibtex": works.bibtex,
        }
    )


def verify(model: options.Pack = "medclip-mini", as_json: options.Json = False) -> None:
    """Check that a pack can be scored with: its files, weights, architecture and preprocessing; `score` asks the same.

    Exit code: 0 all as it should be, 2 refused.
    """
    from medclip.api.verify import verify as run
    from medclip.wording import count

    info = run(model)
    if as_json:
        _json({"ok": True, **_values(info)})
    else:
        files = count(info.num_files, "file")
        print(
            f"{printable(info.name)} {printable(info.version)}: {files}, {_megabytes(info)}, all as the manifest says."
        )


def import_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_FOLDER",
            help="A checkpoint, a folder in a layout of open_clip, transformers (CLIP, SigLIP, DINOv2) or timm, a "
            "folder with a text model alone, or a hub name with hf-hub: before it.",
        ),
    ],
    out: options.OutFolder,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            metavar="NAME|FILE",
            help="Architecture of a bare checkpoint: its name in open_clip (in timm for an image tower alone), or a "
            "JSON file that describes it.",
        ),
    ] = None,
    text_folder: Annotated[
        Path | None,
        typer.Option("--text-folder", metavar="DIR", help="Folder with config.json and tokenizer of its BERT."),
    ] = None,
    name: options.Name = None,
    license_: Annotated[str, typer.Option("--license", help="Licence of the weights, as its source states it.")] = "",
    modalities: Annotated[
        str, typer.Option("--modalities", metavar="A,B", help="What it knows: xray, ct, pathology and so on.")
    ] = "",
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME|FILE",
            help="How its authors treat images, where its own files do not say: see `medclip models presets`.",
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            "--resize",
            metavar="MODE[:PX]",
            help="longest (padded), shortest (centre cut out) or squash; side before the cut.",
        ),
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option("--interpolation", metavar="FILTER", help="bicubic, bilinear, lanczos and so on.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", metavar="R,G,B", help="Per channel, in units of 0 to 1.")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", metavar="R,G,B", help="Standard deviation, in the same units.")
    ] = None,
    crop: Annotated[
        str,
        typer.Option("--crop", help="modality: cut images to what they show, as medclip does; none: leave them whole."),
    ] = "modality",
    pooling: Annotated[
        str | None,
        typer.Option(
            "--pooling",
            metavar="NAME",
            help="How an image tower alone makes one vector of its tokens: token, avg, map, mean or token+mean.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Turn a checkpoint or a model folder into a pack.

    Pickled weights are converted once, in a process of their own that reads tensors and nothing else. A text model
    alone (a BERT) becomes a text folder, for --text-folder and model.text_folder.

    Exit code: 0 written, 2 wrong use or refused.
    """
    from medclip.cli.table import print_paragraph
    from medclip.models.interchange.find_source import is_bare_text_model
    from medclip.models.interchange.import_export import import_model
    from medclip.models.packs.pack import pack_card, read_preprocess, verify_pack
    from medclip.models.packs.words import WITHOUT_WORDS
    from medclip.wording import count

    pack = import_model(
        source,
        out,
        architecture=architecture,
        text_folder=text_folder,
        name=name,
        license=license_,
        modalities=[m.strip() for m in modalities.split(",") if m.strip()],
        preset=preset,
        resize=resize,
        interpolation=interpolation,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        crop=crop,
        pooling=pooling,
        overwrite=overwrite,
    )
    if is_bare_text_model(pack):
        if as_json:
            _json({"text_folder": str(pack), "files": sorted(p.name for p in pack.iterdir())})
        else:
            print(
                f"{_shown(pack)}: a text folder with {', '.join(sorted(p.name for p in pack.iterdir()))}; not a pack."
            )
            print("Name it with --text-folder, or as model.text_folder in a recipe.")
        return
    info = verify_pack(pack)
    if as_json:
        _json(_values(info))
    else:
        print(f"{printable(info.name)}: {count(info.num_files, 'file')}, {_megabytes(info)}, in {_shown(pack)}.")
        card = pack_card(pack)
        print_paragraph("", f"{read_preprocess(pack).describe()} This is from {card.created_from['pixels_from']}.")
        for limit in card.limits:
            if "own_file_says" in card.created_from and limit == card.limits[-1]:
                print_paragraph("Warning: ", limit)
        print(
            "Its card has no task: name what to ask with --prompt or --task when scoring with it."
            if info.has_text
            else f"It is image only. {WITHOUT_WORDS}"
        )


def export(model: options.Pack, out: options.OutFolder, as_json: options.Json = False) -> None:
    """Write a pack as a folder that open_clip loads by local-dir:FOLDER, an image-only pack as one that timm loads.

    Exit code: 0 written, 2 wrong use or refused.
    """
    from medclip.models.interchange.import_export import export_model

    exported = export_model(model, out)
    if as_json:
        _json({"folder": str(exported.folder), "notes": list(exported.notes), "loader": exported.loader})
        return
    place = f"'local-dir:{_shown(exported.folder)}'"
    if exported.loader == "timm":
        print(f"Written. timm loads it: timm.create_model({place}, pretrained=True)")
    else:
        print(f"Written. open_clip loads it: create_model_and_transforms({place})")
    for note in exported.notes:
        print(f"- {note}")


def set_thresholds(
    model: options.Pack,
    thresholds: Annotated[
        Path, typer.Argument(metavar="FILE", help="The thresholds.json of an audit.", show_default=False)
    ],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="Task of the pack whose classes they are of.")],
    out: options.OutFolder,
    as_json: options.Json = False,
) -> None:
    """Write a copy of a pack whose card names thresholds: results then call a study positive or negative.

    Exit code: 0 written, 2 wrong use or refused.
    """
    from medclip.models.packs.card import read_card
    from medclip.models.packs.set_thresholds import set_thresholds

    info = set_thresholds(model, thresholds, task=task, out=out)
    named = read_card(info.path).tasks[task].thresholds
    if as_json:
        _json({"folder": str(info.path), "task": task, "thresholds": {name: one.value for name, one in named.items()}})
        return
    for name, one in named.items():
        print(f"{name}: {one.in_words()}")
    print(f"Written: {_shown(info.path)}")


def presets(as_json: options.Json = False) -> None:
    """List how the authors of public checkpoints treat images: for --preset of `medclip models import`.

    Exit code: 0 listed.
    """
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.interchange.presets import list_presets

    known = list_presets()
    if as_json:
        _json([preset.model_dump(mode="json") for preset in known])
        return
    rows = [
        (preset.name, "/".join(map(str, preset.size)), preset.resize, preset.interpolation, preset.licence)
        for preset in known
    ]
    print_table(("name", "px", "resize", "filter", "licence of the weights"), rows)
    print("\nWhere it is stated, and what of it was read there")
    for preset in known:
        print_paragraph(f"{preset.name}: ", f"{preset.source}. Read: {preset.read}")


def _numbers(text: str | None, option: str) -> list[float] | None:
    from medclip.errors import MedclipError, Reason

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise MedclipError(
            Reason.WRONG_USE, f"{option} takes three numbers, such as 0.485,0.456,0.406, not {text!r}."
        ) from None


def _shown(path: Path) -> str:
    return printable(str(path))


def _figure(row: Mapping[str, Any]) -> tuple[str, ...]:
    from medclip.wording import figure, interval

    around = "" if row["low"] is None else interval(row["low"], row["high"], decimals=3)
    chance = "" if row["chance"] is None else figure(row["chance"], decimals=2)
    return row["task"], row["metric"], figure(row["value"], decimals=3), around, chance


def _values(info: PackInfo) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(info) | {"path": str(info.path)}


def _megabytes(info: PackInfo) -> str:
    return f"{info.num_bytes / 1e6:.1f} MB"


def _json(value: Any) -> None:
    import json

    text = json.dumps(value, indent=1, ensure_ascii=False)
    # What drives a terminal in a card is escaped as JSON does.
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
