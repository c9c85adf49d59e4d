"""What `medclip adapt` and `medclip finetune` did, as text or as JSON: who was learned from, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from medclip.adaptation.finetune.result import FinetuneResult
from medclip.adaptation.maps.learn import MapRun
from medclip.adaptation.run import AdaptRun
from medclip.adaptation.towers.svd_report import Meaning
from medclip.errors import printable
from medclip.evaluation.adapted_figures import notes_of
from medclip.reports.model_card import metric_title
from medclip.wording import by_reason, count, estimate, figure, list_of, number


def adapt_text(run: AdaptRun) -> str:
    """Write a run as lines: the question, patients and shots, notes, and the figures on the test patients."""
    adapted, figures = run.adapted, run.measured
    train = [shot for shot in adapted.shots if shot.role == "train"]
    num_val = len(adapted.shots) - len(train)
    chosen_with = f", and {num_val} further ones to choose settings with" if num_val else ""
    learned_from = f"{count(len(train), 'file')} of {count(len({shot.patient for shot in train}), 'patient')}"
    shots = ", ".join(f"{name} {num}" for name, num in adapted.num_by_class.items())
    learned, tested = (len({run.units[i].patient for i in rows}) for rows in (run.division.train, run.division.test))
    seconds = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())
    lines = [
        f"{run.text.task.title}: {list_of(run.text.names, 'or' if run.text.rules.one_answer else 'and')}",
        f"{count(len(run.units), 'labelled file')} of {count(len({u.patient for u in run.units}), 'patient')}: "
        f"{learned} to learn from and {tested} to test on",
        f"Shots: {shots}; {learned_from}{chosen_with}",
        f"{adapted.title}: {count(adapted.fitted.num_trainable, 'number')} learned ({seconds})",
        *(f"Settings: {line}" for line in _settings(adapted.fitted.settings)),
        *(f"Note: {note}" for note in notes_of(run)),
        *(f"Unlike the published code: {text}" for text in adapted.deviations),
    ]
    if run.problems:
        lines.append(f"Not read: {by_reason(run.problems)}")
    if figures.figures:
        intervals = "; 95 % intervals resample patients" if figures.has_intervals else ""
        tests = f"On {count(figures.num_files, 'file')} of {count(figures.num_patients, 'test patient')}{intervals}."
        lines += ["", *figures.lines(), tests]
    if run.changes:
        lines += ["", "What changed most in the image tower, and the sentences along which that moves the test images:"]
        lines += [line for change in run.changes for line in _change(change)]
    return "\n".join([*lines, "", f"Pack: {printable(str(run.folder))}"])


def map_text(run: MapRun) -> str:
    """Write a run that learned a map as lines."""
    adapted = run.adapted
    patients = len({shot.patient for shot in adapted.shots})
    lines = [
        f"{adapted.text.task.title}: a map, learned from masks",
        f"Shots: {count(len(adapted.shots), 'image')} of {count(patients, 'patient')}; "
        f"{adapted.title}: {count(adapted.fitted.num_trainable, 'number')} learned",
        *(f"Note: {note}" for note in run.notes),
    ]
    if run.problems:
        lines.append(f"Not read: {by_reason(run.problems)}")
    if run.measured is not None:
        lines += ["", *run.measured.lines()]
    return "\n".join([*lines, "", f"Pack: {printable(str(run.folder))}"])


def map_json(run: MapRun) -> dict[str, Any]:
    """Write a run that learned a map as one JSON object."""
    measured = {} if run.measured is None else run.measured.to_json()
    return _learned(run) | {"num_files": run.num_images, "notes": list(run.notes)} | measured


def _learned(run: AdaptRun | MapRun) -> dict[str, Any]:
    """Write what was learned, of whom, and what could not be read."""
    adapted = run.adapted
    return {
        "pack": str(run.folder),
        "task": adapted.text.task.name,
        "kind": adapted.text.kind,
        "classes": list(adapted.text.names),
        "method": adapted.method,
        "base": asdict(adapted.base),
        **asdict(adapted.draw),
        "num_trainable": adapted.fitted.num_trainable,
        "settings": dict(adapted.fitted.settings),
        "deviations": list(adapted.deviations),
        "shots_taken": [asdict(s) for s in adapted.shots],
        "problems": dict(run.problems),
    }


def _change(change: Meaning) -> Iterator[str]:
    part = change.part
    head = "" if part.head is None else f", head {part.head + 1}"
    yield f"{part.layer}{head}: changed by {part.change:.3g}, moves vectors by {change.effect:.3g}"
    for sentence, share in change.sentences:
        yield f"  {share:.0%} {sentence}"


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was chosen, on what, and what it was worth there."""
    chosen = [f"{name} {settings[name]:.3g}" for name in ("lr", "c") if isinstance(settings.get(name), float)]
    chosen += [f"start {settings['start']}"] if "start" in settings else []
    if not chosen or "chosen_on" not in settings:
        return
    how = settings["chosen_on"]
    line = f"{', '.join(chosen)} ({how})" if how in ("given", "default") else f"{', '.join(chosen)}, chosen on {how}"
    if "log_loss" in settings:
        line += f": log loss {settings['log_loss']:.3f}"
        if "log_loss_zero_shot" in settings:
            line += f", zero-shot {settings['log_loss_zero_shot']:.3f}"
    if "images" in settings:
        num_rates = len(settings.get("log_loss_by_rate", ()))
        line += f"; {number(settings['images'])} images" + (f" at each of {num_rates} rates" if num_rates > 1 else "")
    yield line


def adapt_json(run: AdaptRun) -> dict[str, Any]:
    """Write a run as one JSON object, every shot and setting with it."""
    return {
        **_learned(run),
        "seconds": {name: round(s, 2) for name, s in run.seconds.items()},
        "num_files": len(run.units),
        "notes": list(notes_of(run)),
        **({"changes": [asdict(change) for change in run.changes]} if run.changes else {}),
        **run.measured.to_json(),
    }


def finetune_text(result: FinetuneResult) -> str:
    """Write a run as lines: the question, patients and images, notes, and the figures on the test patients."""
    text, run = result.text, result.run
    sizes = ", ".join(
        f"{split} {count(result.images[split], 'image')} of {count(result.patients.get(split, 0), 'patient')}"
        for split in ("train", "val", "test")
    )
    lines = [
        f"{text.task.title}: {list_of(text.names, 'or' if text.rules.one_answer else 'and')}",
        f"Splits: {sizes}",
        *(f"Note: {note}" for note in result.notes),
    ]
    if result.problems:
        lines.append(f"Not read: {by_reason(result.problems)}")
    if run.pack is None:
        done = f"Stopped after {run.steps} of {run.total_steps} steps; a checkpoint is in {run.out}."
        return "\n".join([*lines, f"{done} Run the same command again to go on."])
    lines.append("")
    if result.test:
        rows = [(metric_title(row["metric"]), row) for row in result.test]
        width = max(len(title) for title, _ in rows)
        lines.append("On the test patients, measured once; 95 % intervals resample patients:")
        lines += [
            f"{title.ljust(width)}  {estimate(row['value'], row['low'], row['high'])}  chance {figure(row['chance'])}"
            for title, row in rows
        ]
    else:
        lines.append("The test split could not be measured; the report says why.")
    return "\n".join([*lines, "", f"Pack: {run.pack}", f"Report: {run.report}"])


def finetune_json(result: FinetuneResult) -> dict[str, Any]:
    """Write a run as one JSON object."""
    run = result.run
    return {
        "out": str(run.out),
        "task": result.text.task.name,
        "kind": result.text.kind,
        "classes": list(result.text.names),
        "images": dict(result.images),
        "patients": dict(result.patients),
        "problems": dict(result.problems),
        "notes": list(result.notes),
        "steps": run.steps,
        "total_steps": run.total_steps,
        "validation": dict(run.validation),
        "test": [dict(row) for row in result.test],
        "pack": str(run.pack) if run.pack else None,
        "report": str(run.report) if run.report else None,
    }
