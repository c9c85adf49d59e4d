"""The figures of the comparison, from the cells that are done: every arm, and paired differences, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison_plan import ARMS, CNN, METRIC, QUESTIONS, REFERENCES, SHARES, Question, cells, labelled, stored


def measure(data: Path, run: Path) -> list[dict[str, Any]]:
    """Measure every arm, and the paired difference of each pretrained one to each reference, over the cells done."""
    return [
        row
        for question in QUESTIONS
        for how in ("probe", "finetune")
        for share in SHARES
        for row in _measured(data, run, question, how, share)
    ]


def _measured(data: Path, run: Path, question: Question, how: str, share: float) -> Iterator[dict[str, Any]]:
    """Measure the arms of one set, way and share; an arm has a figure only where all its seeds are done.

    Patients of the test split are resampled, the same ones for all arms; over seeds the variance of the mean is added.
    """
    from medclip.statistics.estimate import NUM_RESAMPLES
    from medclip.statistics.metrics.classification import HeldOut, figures, numbered
    from medclip.statistics.resampling.resampled import difference, interval_of
    from medclip.statistics.resampling.weights import draw_weights

    tested = [row for row in labelled(question, data) if row.split == "test"]
    number = {name: i for i, name in enumerate(question.classes)}
    targets = np.array([number[row.label] for row in tested])
    test = HeldOut(targets, numbered([row.patient for row in tested]), len(number))
    weights_PB = draw_weights(test.num_patients, NUM_RESAMPLES, seed=0)
    head = {"set": question.set, "how": how, "share": share}
    values = {}
    for arm in ARMS:
        way = "finetune" if arm.tower == CNN else how  # a probe is held against a CNN that learned from the same labels
        own = [c for c in cells() if (c.how, c.arm, c.question, c.share) == (way, arm, question, share)]
        done = [answer for cell in own if (answer := stored(run, cell)) is not None]
        if not own or len(done) < len(own):
            continue
        logits_RNC = np.array([answer["logits"] for answer in done])
        values[arm.name] = figures(logits_RNC, test, weights_PB, [METRIC], runs=(len(own), 1))[METRIC]
        if way != how:
            continue
        e = interval_of(values[arm.name])
        yield head | {
            "arm": arm.name,
            "value": e.value,
            "low": e.low,
            "high": e.high,
            "seeds": len(own),
            "num_train": done[0]["num_train"],
            "num_images": len(tested),
            "num_patients": test.num_patients,
            "cpu_s": float(np.mean([answer["cpu_s"] for answer in done])),
        }
    for arm in ARMS:
        for reference in REFERENCES if arm.start is not None and arm.name in values else ():
            if reference in values:
                d = difference(values[reference], values[arm.name])
                yield head | {
                    "arm": arm.name,
                    "minus": reference,
                    "value": d.value,
                    "low": d.low,
                    "high": d.high,
                    "p": d.p,
                }


def table_of(measured: Sequence[Mapping[str, Any]]) -> str:
    """Write the figures, and the differences below, as two tables in Markdown."""
    title = {q.set: q.title for q in QUESTIONS} | {a.name: a.title for a in ARMS}
    ways = {"probe": "linear probe", "finetune": "fine-tuning"}
    lines = ["| set | how | labels | start | AUROC | test patients | CPU s a run |", "|---|---|---|---|---|---|---|"]
    differences = ["| set | how | labels | start | minus | difference of AUROC | p |", "|---|---|---|---|---|---|---|"]
    for m in measured:
        head = f"| {title[m['set']]} | {ways[m['how']]} | {m['share']:.0%} | {title[m['arm']]} |"
        if "minus" in m:
            shown = f"{_signed(m['value'])} [{_signed(m['low'])}, {_signed(m['high'])}]"
            differences.append(f"{head} {title[m['minus']]} | {shown} | {m['p']:.3f} |")
        else:
            shown = f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"
            cpu = f"{m['cpu_s']:.0f}" if m["how"] == "finetune" else "–"  # features are computed once for all probes
            lines.append(f"{head} {shown} | {m['num_patients']} | {cpu} |")
    return "\n".join([*lines, "", *differences]) + "\n"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
