"""`medclip models`: list, show, cite, verify, calibrate, merge, distil, import and export model packs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api import models as verbs
from medclip.api.calibrate import calibrate as calibrate_verb
from medclip.api.distil import distil as distil_verb
from medclip.api.merge_packs import merge_packs as merge_verb
from medclip.cli.derive import derive
from medclip.errors import printable

if TYPE_CHECKING:
    from medclip.models.packs.card import Card
    from medclip.models.packs.pack import PackInfo
    from medclip.models.packs.word_control import WordControl


def print_list(packs: Any, as_json: bool, named: Any) -> None:
    """Print a line about each pack."""
    from medclip.cli.table import print_table

    if as_json:
        _json([_values(p) for p in packs])
    elif not packs and named.get("folder") is not None:
        print("There is no model pack in this folder.")
    elif not packs:
        print("No model pack came with this medclip. Packs elsewhere load by their folder.")
    else:
        first = [p.summary.partition(". ")[0] for p in packs]  # the whole of it stands on the card
        rows = [
            (p.name, p.version, _megabytes(p), ", ".join(p.modalities), summary)
            for p, summary in zip(packs, first, strict=True)
        ]
        print_table(("name", "version", "size", "modalities", "summary"), rows)


def view_card(card: Any, as_json: bool, named: Any) -> None:
    """Print a pack's card."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.packs.pack import DEFAULT, find_pack
    from medclip.wording import count

    path = find_pack(named.get("model", DEFAULT))
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
        _print_word_control(held.word_control)
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
    from medclip.models.packs.words import unanswered
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
    _print_word_control({task: about.word_control for task, about in card.tasks.items()})
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
        if task in spoken_names() and (only := load_task(task).none_in_words):
            print_paragraph(f"{printable(task)}: ", f"{only}.")
        if about.pooling is not None:
            print_paragraph(f"{printable(task)}: ", about.pooling.in_words)


def _print_word_control(controls: Mapping[str, Mapping[str, WordControl]]) -> None:
    """Print whether other words would do as well as those of each task."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.packs.card_sources import ALL

    named = [
        (task if name == ALL else f"{task}, {name}", control)
        for task, of_task in controls.items()
        for name, control in of_task.items()
    ]
    if not named:
        return
    print()
    print_paragraph(
        "",
        "Would other words do? AUROC of two answers, else balanced accuracy, by the task's own words, and these less "
        "unrelated words and words of other findings, with 95 % intervals",
    )
    rows = []
    for what, control in named:
        apart = [one.apart if one else "" for one in (control.unrelated, control.other_findings)]
        rows.append((what, f"{control.own_words.value:.3f}", *apart))
    print_table(("task", "own", "less unrelated", "less other findings"), rows)
    for what, control in named:
        if control.caution:
            as_what = control.listed_as(what.partition(", ")[2] or ALL)
            listed = f"Listed as “{as_what}”. " if as_what else ""
            print_paragraph(f"{printable(what)}: ", f"{listed}{control.caution}")


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
    from medclip.models.packs.card import licence_names
    from medclip.wording import list_of

    names = licence_names(path)
    full = f"in full in {list_of(names)} of the pack" if names else ""
    if not card.licence:
        return full
    return f"{card.licence}; these are the terms of the weights{f', {full}' if full else ''}"


def print_citations(works: Any, as_json: bool, _: Any) -> None:
    """Print the text of a .bib file."""
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


def print_verified(info: Any, as_json: bool, _: Any) -> None:
    """Print that a pack is as it should be."""
    from medclip.wording import count

    if as_json:
        _json({"ok": True, **_values(info)})
    else:
        files = count(info.num_files, "file")
        print(
            f"{printable(info.name)} {printable(info.version)}: {files}, {_megabytes(info)}, all as the manifest says."
        )


def print_imported(pack: Any, as_json: bool, _: Any) -> None:
    """Print what was made of a checkpoint, and what to do with it."""
    from medclip.cli.table import print_paragraph
    from medclip.models.interchange.find_source import is_bare_text_model
    from medclip.models.interchange.import_export import CROP_EFFECT
    from medclip.models.packs.pack import pack_card, read_preprocess, verify_pack
    from medclip.models.packs.words import WITHOUT_WORDS
    from medclip.wording import count

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
        if of_crop := card.created_from.get(CROP_EFFECT):
            print_paragraph("", of_crop)
        for limit in card.limits:
            if "own_file_says" in card.created_from and limit == card.limits[-1]:
                print_paragraph("Warning: ", limit)
        print(
            "Its card has no task: name what to ask with --prompt or --task when scoring with it."
            if info.has_text
            else f"It is image only. {WITHOUT_WORDS}"
        )


def print_exported(exported: Any, as_json: bool, _: Any) -> None:
    """Print the line that loads an exported folder."""
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


def print_thresholds(info: Any, as_json: bool, named: Any) -> None:
    """Print the thresholds of the new pack."""
    from medclip.models.packs.card import read_card

    task = named["task"]
    thresholds = read_card(info.path).tasks[task].thresholds
    if as_json:
        values = {name: one.value for name, one in thresholds.items()}
        _json({"folder": str(info.path), "task": task, "thresholds": values})
        return
    for name, one in thresholds.items():
        print(f"{name}: {one.in_words()}")
    print(f"Written: {_shown(info.path)}")


def print_presets(known: Any, as_json: bool, _: Any) -> None:
    """Print how the authors of public checkpoints treat images."""
    from medclip.cli.table import print_paragraph, print_table

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


def print_calibration(calibration: Any, as_json: bool, named: Any) -> None:
    """Print what was measured of each back-end, and which one was chosen."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.backends.choice import what_may_break
    from medclip.models.backends.known import BACKENDS
    from medclip.wording import count, list_of, number

    if as_json:
        values = {name: value for name, value in asdict(calibration).items() if name != "folder"}
        values |= {name: getattr(calibration, name) for name in ("pays_from", "run_pays_from", "saved_ms")}
        print(json.dumps({"folder": str(calibration.folder), **values}, indent=1))
        return
    rows = [
        (c.name, f"{c.cpu_ms:.1f}", f"{c.times_as_fast:.2f}", f"{c.largest_change:.1e}", f"{c.bound:g}", c.refused)
        for c in calibration.candidates
    ]
    print_table(("back-end", "ms", "times as fast", "change", "allowed", "refused, as"), rows)
    for candidate in calibration.candidates:
        if BACKENDS[candidate.name].compiles:
            print_paragraph(
                "Start: ",
                f"each run compiles {candidate.name} for {candidate.start_s:.0f} s; with that an image of "
                f"{number(calibration.run_images)} costs {calibration.cost_ms(candidate):.1f} ms.",
            )
    for why in dict.fromkeys(calibration.left_out.values()):
        names = list_of([name for name, other in calibration.left_out.items() if other == why])
        print_paragraph("Not tried: ", f"{names}: {why}")
    judged = calibration.judged
    about = f"{count(calibration.num_images, 'image')}, {list_of(calibration.tasks)}"
    print_paragraph("\nMeasured on ", f"{about}; ms is processor time of one image on one thread of {calibration.cpu}.")
    patients = "patients apart" if calibration.num_patients else "which name no patients"
    of_patients = f" of {count(num, 'patient')}" if (num := calibration.num_held_out_patients) else ""
    print_paragraph(
        "Judged on ",
        f"{count(calibration.num_held_out, 'image')}{of_patients} that did not choose ({patients}): "
        f"{calibration.choice} changed no probability by more than {judged.largest_change:.1e}. "
        f"{what_may_break(calibration.num_held_out, num, calibration.chosen.bound)}",
    )
    where = "auto" if named.get("out") is None else _shown(calibration.folder)
    print_paragraph("Pays ", f"{calibration.when_it_pays()}.")
    print(f"Choice: {calibration.choice}. Score with it: --backend {where}")


def print_merged(merged: Any, as_json: bool, _: Any) -> None:
    """Print what became of each pack, and what was measured after merging."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.wording import figure, interval

    if as_json:
        values = {
            name: getattr(merged, name)
            for name in ("name", "method", "packs", "tried", "figure", "shares", "held_out", "notes")
        }
        values["shares"] = dict(merged.shares)
        values["tried"] = [asdict(one) for one in merged.tried]
        values["held_out"] = None if merged.held_out is None else merged.held_out.model_dump(mode="json")
        values = {"folder": str(merged.path), **values}
        print(json.dumps(values, indent=1))
        return
    if merged.tried:
        rows = [
            (
                printable(one.name),
                figure(one.alone, decimals=3),
                figure(one.soup, decimals=3),
                "in" if one.accepted else "left out",
                "" if one.midpoint is None else figure(one.midpoint, decimals=3),
            )
            for one in merged.tried
        ]
        print_table(("pack", "alone", "soup with it", "", "halfway to the best"), rows)
    if merged.shares:
        shares = [(printable(name), figure(share, decimals=3)) for name, share in merged.shares.items()]
        print_table(("pack", "share of the weights"), shares)
    if merged.held_out is not None:
        rows = [
            (
                row["task"],
                row["metric"],
                figure(row["value"], decimals=3),
                "" if row["low"] is None else interval(row["low"], row["high"], decimals=3),
            )
            for row in merged.held_out.rows()
        ]
        print_table(("task", "metric", "value", "interval"), rows)
    for note in merged.notes:
        print_paragraph("- ", note)
    if merged.held_out is None:
        print("Nothing was measured after merging: its card lists tasks without figures.")
    print(f"Written: {_shown(merged.path)}, of {', '.join(printable(one) for one in merged.packs)}")


def print_distilled(student: Any, as_json: bool, _: Any) -> None:
    """Print whose student it is, how far both agree, and how much faster it is."""
    from medclip.cli.table import print_paragraph, print_table
    from medclip.wording import count, figure, interval

    agreement = student.agreement
    if as_json:
        values = {name: getattr(student, name) for name in ("teacher", "tower", "num_train", "notes")}
        _json({"folder": str(student.path), **values, "agreement": None if agreement is None else agreement.to_dict()})
        return
    print(f"{student.tower}, student of {printable(student.teacher)}, of {count(student.num_train, 'image')}.")
    if agreement is not None:
        rows = [
            (
                row["task"],
                figure(row["agreement"], decimals=3),
                interval(row["low"], row["high"], decimals=3),
                figure(row["constant"], decimals=3),
            )
            for row in agreement.rows()
        ]
        if rows:
            print_table(("task", "answers alike", "interval", "always the commonest"), rows)
        images = count(agreement.num_images, "image")
        print(f"Mean cosine {agreement.cosine} on {images} of the split {agreement.split}.")
        print(f"Images a second: {agreement.speed_in_words}.")
    for note in student.notes:
        print_paragraph("- ", note)
    print(f"Written: {_shown(student.path)}")


def _shown(path: Path) -> str:
    return printable(str(path))


def _figure(row: Mapping[str, Any]) -> tuple[str, ...]:
    from medclip.wording import figure, interval

    around = "" if row["low"] is None else interval(row["low"], row["high"], decimals=3)
    chance = "" if row["chance"] is None else figure(row["chance"], decimals=2)
    return row["task"], row["metric"], figure(row["value"], decimals=3), around, chance


def _values(info: PackInfo) -> dict[str, Any]:
    return asdict(info) | {"path": str(info.path)}


def _megabytes(info: PackInfo) -> str:
    return f"{info.num_bytes / 1e6:.1f} MB"


def _json(value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # What drives a terminal in a card is escaped as JSON does.
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


list_command = derive(verbs.list_packs, print_list, exit_codes="0 listed")
show = derive(verbs.show, view_card, exit_codes="0 shown")
cite = derive(verbs.cite, print_citations, exit_codes="0 printed")
verify = derive(verbs.verify, print_verified, exit_codes="0 all as it should be")
calibrate = derive(calibrate_verb, print_calibration, exit_codes="0 chosen")
merge = derive(merge_verb, print_merged, exit_codes="0 merged")
distil = derive(distil_verb, print_distilled, exit_codes="0 written")
import_command = derive(verbs.import_model, print_imported, exit_codes="0 written")
export = derive(verbs.export_model, print_exported, exit_codes="0 written")
set_thresholds = derive(verbs.set_thresholds, print_thresholds, exit_codes="0 written")
presets = derive(verbs.presets, print_presets, exit_codes="0 listed")
