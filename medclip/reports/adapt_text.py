"""What `medclip adapt` did, as text or as JSON: who was learned from, what was learned, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from medclip.adaptation.run import AdaptRun
from medclip.errors import printable
from medclip.evaluation.adapted_figures import notes_of
from medclip.wording import by_reason, count, list_of, number


def adapt_text(run: AdaptRun) -> str:
    """Write a run as lines: the question, patients and shots, notes, and the figures on the test patients."""
    adapted, figures = run.adapted, run.measured
    train = [shot for shot in adapted.shots if shot.role == "train"]
    num_val = len(adapted.shots) - len(train)
    chosen_with = f", and {num_val} further ones to choose settings with" if num_val else ""
    shown = f"{count(len(train), 'file')} of {count(len({shot.patient for shot in train}), 'patient')}"
    shots = ", ".join(f"{name} {num}" for name, num in adapted.num_by_class.items())
    learned, tested = (len({run.units[i].patient for i in rows}) for rows in (run.division.train, run.division.test))
    seconds = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())
    lines = [
        f"{run.text.task.title}: {list_of(run.text.names, 'or' if run.text.rules.one_answer else 'and')}",
        f"{count(len(run.units), 'labelled file')} of {count(len({u.patient for u in run.units}), 'patient')}: "
        f"{learned} to learn from and {tested} to test on",
        f"Shots: {shots}; {shown}{chosen_with}",
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
    return "\n".join([*lines, "", f"Pack: {printable(str(run.folder))}"])


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
    adapted = run.adapted
    return {
        "pack": str(run.folder),
        "task": run.text.task.name,
        "kind": run.text.kind,
        "classes": list(run.text.names),
        "method": adapted.method,
        "base": asdict(adapted.base),
        **asdict(adapted.draw),
        "num_trainable": adapted.fitted.num_trainable,
        "settings": dict(adapted.fitted.settings),
        "deviations": list(adapted.deviations),
        "seconds": {name: round(s, 2) for name, s in run.seconds.items()},
        "num_files": len(run.units),
        "shots_taken": [asdict(s) for s in adapted.shots],
        "problems": dict(run.problems),
        "notes": list(notes_of(run)),
        **run.measured.to_json(),
    }
