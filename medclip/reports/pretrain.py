"""What the page of a run shows: picked from its log, its recipe and its pack, nothing computed anew.

Its curves are drawn with matplotlib; they follow dark mode and print, though they are images.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import printable
from medclip.evaluation.shard_split import RETRIEVAL, VIEWS
from medclip.files.output import write_file
from medclip.models.packs.card import Card, SplitFigures
from medclip.reports.drawings import BAD, FIRST, INK, SECOND, SOFT, dress, themed_svg
from medclip.reports.html_page import image_uri, render_page, svg_uri
from medclip.reports.model_card import metric_title, task_title, view_card
from medclip.reports.pretrain_findings import History, chosen_step, findings
from medclip.sample import spoken
from medclip.text.vocabulary.load import load_task
from medclip.training.recipe.deviations import deviations
from medclip.training.recipe.schema import Recipe
from medclip.training.result import FILE_NAME, REPORT, SHARES, SIZES, PretrainResult, read_log
from medclip.version import __version__
from medclip.wording import by_reason, capital, count, figure, interval, list_of, number, percent

if TYPE_CHECKING:
    from medclip.training.reconstructions import Reconstruction


_STYLES = ("style.css", "pretrain.css")
_LARGEST_PX = 256
"""Sides above this are halved until they are not: a page of eight images stays at one or two megabytes."""
_MOST_POINTS = 600
"""Points of a line; of a longer run each is the mean of some, with a band from the least to the largest."""
_ZERO_SHOT = "zero_shot."


def write_pretrain_report(recipe: Recipe, result: PretrainResult, card: Card | None) -> Path:
    """Write report.html into the run's folder, and return its path; a run that was stopped has no card."""
    history = History(read_log(result.out / FILE_NAME))
    held = card.held_out if card is not None else None
    rows = held.rows() if held is not None else []
    drawn = bool(history.column("loss"))
    # Of volumes and loops there is no code to be held against: tubes are VideoMAE's, all else is our own.
    differing = deviations(recipe) if recipe.model.volume is recipe.model.signal is None else ()
    values = {
        "recipe": recipe,
        "name": printable(recipe.name),
        "version": printable(recipe.version),
        "medclip": __version__,
        "findings": findings(recipe, history, rows, finished=result.finished, filled=result.reconstructions),
        "run_facts": tuple(_facts(result, history)),
        "learning": svg_uri(learning(history)) if drawn else "",
        "learning_text": _learning_text(history) if drawn else "",
        "reconstructions": [_triptych(one) for one in result.reconstructions],
        "speed": svg_uri(speed(history)) if drawn else "",
        "speed_text": _speed_text(history) if drawn else "",
        "validation": tuple(_validation(history, recipe)),
        "validation_of": _validation_of(history),
        "test_of": _test_of(held),
        "chosen": chosen_step(recipe, history),
        "test": tuple(_test(held)),
        "has_start": any(row["metric"].endswith(" start") for row in rows),
        "test_notes": held.notes if held is not None else (),
        "deviations": differing,
        "data": view_card(card).data if card is not None else (),
        "bad": by_reason(history.bad),
        "resumed": list_of([number(step) for step in history.resumed], most=10),
        "noted": tuple(printable(note) for note in history.notes),
        "settings": tuple(_settings(recipe)),
        "origin": [(key.replace("_", " "), printable(str(v))) for key, v in card.created_from.items()] if card else (),
    }
    path = result.out / REPORT
    write_file(path, render_page("pretrain.html.j2", _STYLES, values))
    return path


def _facts(result: PretrainResult, history: History) -> Iterator[tuple[str, str]]:
    yield "Steps", f"{number(result.steps)} of {number(result.total_steps)}"
    losses = history.column("loss")
    if losses:
        yield "Last loss", figure(losses[-1][1], decimals=3)
    speeds = [value for _, value in history.column("images_s")]
    if speeds:
        yield "Images a second", figure(sum(speeds) / len(speeds))
    for key, name in SHARES.items():
        shares = [value for _, value in history.column(key)]
        if shares:
            yield f"Time {name}", percent(sum(shares) / len(shares))
    yield "Steps left out", number(len(history.skipped))


def _learning_text(history: History) -> str:
    losses, rates = history.column("loss"), history.column("lr")
    text = f"Loss over steps: {figure(losses[0][1], decimals=3)} at step {number(losses[0][0])}"
    text += f", {figure(losses[-1][1], decimals=3)} at step {number(losses[-1][0])}."
    validation = history.validation("val_loss")
    if validation:
        text += " Validation: " + ", ".join(
            f"{figure(value, decimals=3)} at {number(step)}" for step, value in (validation[0], validation[-1])
        )
        text += "."
    return text + (f" Highest learning rate {max(rate for _, rate in rates):.3g}." if rates else "")


def _speed_text(history: History) -> str:
    speeds = [value for _, value in history.column("images_s")]
    return f"Images a second over steps: between {figure(min(speeds))} and {figure(max(speeds))}." if speeds else ""


def _validation(history: History, recipe: Recipe) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each figure of the validation split: its last value, its best with the step that had it, and chance."""
    entries = history.of("val")
    if not entries:
        return
    for name in entries[-1]:
        figure_name, dot, task_name = name.partition(".")
        if figure_name in ("kind", "step", "chance_r1", *SIZES) or not (points := history.validation(name)):
            continue
        step, best = (min if name.endswith(("loss", "error")) else max)(points, key=lambda point: point[1])
        last, best, chance = (figure(v, decimals=3) for v in (points[-1][1], best, _chance(name, entries[-1], recipe)))
        ends = [entries[-1].get(f"auroc_{end}{dot}{task_name}") for end in ("low", "high")]
        if figure_name == "auroc" and None not in ends:
            last += f" ({interval(*ends, decimals=3)})"
        yield _validation_title(name), (last, f"{best} at step {number(step)}", chance)


def _validation_of(history: History) -> str:
    """Return what the last validation is of: 120 images of 60 patients; of several heads each."""
    last = {} if not history.of("val") else history.of("val")[-1]
    sizes = [(name.partition(".")[2], n) for name, n in last.items() if name.partition(".")[0] == "num_images"]
    return "; ".join(
        f"{f'{task_title(task)}: ' if task else ''}{count(n, 'image')} of "
        f"{count(last[f'num_patients.{task}' if task else 'num_patients'], 'patient')}"
        for task, n in sizes
    )


def _validation_title(name: str) -> str:
    if not name.startswith(_ZERO_SHOT):
        figure_name, _, task_name = name.partition(".")
        return metric_title(figure_name) + (f": {task_name}" if task_name else "")
    task_name, _, within = name.removeprefix(_ZERO_SHOT).partition(".")
    task = load_task(task_name)
    metric = "balanced accuracy" if task.rules.one_answer else "mean AUROC"
    return f"{task.title}: {metric} in words{' within single sources' if within else ''}"


def _chance(name: str, entry: Mapping[str, Any], recipe: Recipe) -> float | None:
    if name.startswith(_ZERO_SHOT):
        task_name, _, within = name.removeprefix(_ZERO_SHOT).partition(".")
        task = load_task(task_name)
        if within and task.rules.one_answer:
            return None  # sources have some of the classes each
        return 1 / len(task.classes) if task.rules.one_answer else 0.5
    figure_name, _, task_name = name.partition(".")
    heads = [head for head in recipe.objective.supervised if not task_name or head.asked.name == task_name]
    if heads and figure_name in ("auroc", "balanced_accuracy"):
        several = len(heads) > 1 or not heads[0].classes
        return 0.5 if figure_name == "auroc" else None if several else 1 / len(heads[0].classes)
    if name == "cross_view_r1":
        return entry.get("cross_view_chance_r1")
    return entry.get("chance_r1") if name.endswith("_r1") else None


def _test_of(held: SplitFigures | None) -> str:
    if held is None:
        return ""
    size = count(held.num_images, "image")
    size += f" of {count(held.num_patients, 'patient')}" if held.num_patients is not None else ""
    left_out = f"; {count(held.num_in_training, 'image')} of training left out" if held.num_in_training else ""
    unread = f"; not read: {by_reason(held.problems)}" if held.problems else ""
    return f"{size} in the split {printable(held.split)}{left_out}{unread}"


def _test(held: SplitFigures | None) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield task, figure and numbers of each row of the test table; `start` is of the model that the run began with."""
    for task, metrics in held.figures.items() if held is not None else ():
        for name, node in _leaves(metrics):
            measured = node if "value" in node else node["zero_shot"]
            start = node.get("start")
            has_patients = held is not None and held.num_patients is not None
            numbers = {
                "value": figure(measured["value"], decimals=3),
                "interval": interval(measured.get("low"), measured.get("high"), decimals=3),
                "chance": figure(measured.get("chance"), decimals=3),
                "start": "" if start is None else figure(start["value"], decimals=3),
                "images": number(measured.get("num_images")),
                "patients": number(measured.get("num_patients")) if has_patients else "–",
            }
            yield (
                {RETRIEVAL: "Retrieval", VIEWS: "Views of one thing"}.get(task) or task_title(task),
                metric_title(name),
                numbers,
            )


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each figure, or each pair of a figure and the start's, with its name."""
    for name, child in node.items():
        if "value" in child or "zero_shot" in child:
            yield " ".join((*path, name)), child
        else:
            yield from _leaves(child, (*path, name))


def _settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """List what the recipe sets, of what decides the weights: no folder is named but by its last part."""
    chosen = recipe.model_dump(mode="json", exclude_unset=True)
    for key, value in recipe.decisive().items():
        node: Any = chosen
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if node is not None:
            yield key, printable(str(value))


def _triptych(one: Reconstruction) -> tuple[str, tuple[str, ...], str]:
    """Return the name of an image, its sources as it is, as it was seen and as it was filled in, and the error."""
    grey = bool((one.original_HWC == one.original_HWC[..., :1]).all())
    error, naive = (figure(value, decimals=3) for value in (one.error, one.naive_error))
    return (
        capital(spoken(one.modality)) if one.modality else "Modality not known",
        tuple(_png_uri(pixels, grey) for pixels in (one.original_HWC, one.visible_HWC, one.filled_HWC)),
        f"{percent(one.hidden_share)} hidden. Error {error}; without a model {naive}.",
    )


def _png_uri(pixels_HWC: NDArray[np.uint8], grey: bool) -> str:
    """Write pixels as a PNG. Of a grey original the guess is shown in grey, too: its three channels are one value."""
    from PIL import Image

    pixels = pixels_HWC.mean(axis=2).round().astype(np.uint8) if grey else np.ascontiguousarray(pixels_HWC)
    image = Image.fromarray(pixels)
    while max(image.size) > _LARGEST_PX:
        image = image.reduce(2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return image_uri(buffer.getvalue(), "png")


def learning(history: History) -> str:
    """Draw the loss of training and validation, the steps that were left out, and the learning rate below, as SVG."""

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        _line(upper, history.column("loss"), FIRST, "training")
        validation = history.validation("val_loss")
        if validation:
            upper.plot(*zip(*validation, strict=True), color=SECOND, marker="o", markersize=4, label="validation")
        for n, step in enumerate(history.skipped):
            upper.axvline(step, color=BAD, linewidth=1, label="" if n else "step left out")
        for n, step in enumerate(history.resumed):
            upper.axvline(step, color=SOFT, linewidth=1, linestyle=":", label="" if n else "went on here")
        dress(upper, "loss")
        upper.legend(frameon=False, labelcolor=INK, loc="upper right", ncols=2)
        _line(lower, history.column("lr"), FIRST, "")
        dress(lower, "learning rate", "step")
        lower.set_ylim(bottom=0.0)

    return _stepped_svg((9.2, 5.2), draw)


def speed(history: History) -> str:
    """Draw the images a second, and below the share of time that was spent waiting for data, as SVG."""

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _line(upper, history.column("images_s"), FIRST, "")
        dress(upper, "images/s")
        upper.set_ylim(bottom=0.0)
        waits = {name: points for name in SHARES if (points := history.column(name))}
        for (name, points), colour in zip(waits.items(), (SECOND, FIRST), strict=False):
            _line(lower, [(step, 100 * share) for step, share in points], colour, SHARES[name])
        dress(lower, "% of the time", "step")
        lower.set_ylim(0.0, max(10.0, 1.3 * lower.get_ylim()[1]))  # room for the legend
        if waits:
            lower.legend(frameon=False, labelcolor=INK, loc="upper right", ncols=2)

    return _stepped_svg((9.2, 3.8), draw)


def _stepped_svg(size: tuple[float, float], draw: Any) -> str:
    from matplotlib.ticker import MaxNLocator

    def stepped(figure: Any) -> None:
        draw(figure)
        for axes in figure.axes:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return themed_svg(size, stepped)


def _line(axes: Any, points: Sequence[tuple[float, float]], colour: str, label: str) -> None:
    if not points:
        return
    steps, values = np.array(points, np.float64).T
    if len(steps) > _MOST_POINTS:
        parts = np.array_split(np.arange(len(steps)), _MOST_POINTS)
        low, high = (np.array([reduce(values[part]) for part in parts]) for reduce in (np.min, np.max))
        steps, values = (np.array([column[part].mean() for part in parts]) for column in (steps, values))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "." if len(steps) < 40 else ""
    axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker, label=label or "_")
