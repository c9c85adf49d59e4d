"""What `medclip finetune` did, as text or as JSON: who was learned from and chosen with, and how good each class is."""

from __future__ import annotations

from typing import Any

from medclip.adaptation.finetune.result import FinetuneResult
from medclip.reports.pretrain.words import metric_title
from medclip.wording import by_reason, count, estimate, figure, list_of


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
