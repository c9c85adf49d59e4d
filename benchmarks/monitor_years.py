"""Claim: the monitor's false alarms a year are what is stated, and one scanner of three that changes is found by name.

    python benchmarks/monitor_years.py [--years 100] [--compared-years 25] [--shared ../shared] [--scores FOLDER]

400 chest films of as many patients are scored once with the built-in pack, 240 of them also inverted, with half the
contrast, with gamma 2.2 and sharpened (another processing protocol); bedside (AP) films that come in the place of PA
films without a word in the header are another protocol, too. `--scores` keeps those tables for another call.

Years are drawn from these tables: 52 weeks, three scanners with about 20 patients a week each, two sites, two views,
2 % of the files fail, and one patient in five is one of the weeks before, with the same film. The reference is 4 weeks
(60 patients a week) or 26.

Quiet years: false alarms a year with a 95 % interval (Poisson). Years in which one scanner changes in week 20, at once
or slowly: the weeks until a chart of that scanner alarms (1: in the week of the change), the share within 4 and 12
weeks, and how often the first alarm is led by that scanner. Beside it what the monitor said before: a week is flagged
where a figure of everything differs clearly (size `clear` or `large`), adjusted over the year. That has no stated rate,
so its flagged weeks in quiet years stand beside it, and a week that is flagged by chance counts as found.

Ends with 1 where the false alarms a year are above what is stated by more than their interval, or where a change at
once is found within 12 weeks in less than 90 % of the years with the reference of 26 weeks.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from medclip.monitoring.alarms import alarms_of
from medclip.monitoring.changes import changes_of
from medclip.monitoring.read_results import NOT_STATED, SCORED, UNIT_FACTS, Periods, Question, Units, Watched

WEEKS, CHANGE_WEEK, A_WEEK, FAILED, RETURNS = 52, 20, 20, 0.02, 0.2
SCANNERS = ("Fujifilm FCR (aa0001)", "Philips DigitalDiagnost (bb0002)", "Siemens Ysio (cc0003)")
CHANGED = SCANNERS[1]
SITES = ("d1e101", "d1e101", "d1e202")
REFERENCES = {"4 weeks": 4, "26 weeks": 26}
NUM_PA, NUM_AP = 240, 160
Image = NDArray[np.float64]


def _sharpened(image: Image) -> Image:
    from scipy.ndimage import gaussian_filter

    return image + 1.5 * (image - gaussian_filter(image, 6))


ALTERATIONS: Mapping[str, Callable[[Image], Image]] = {
    "inverted": lambda image: 255 - image,
    "half the contrast": lambda image: 128 + (image - 128) / 2,
    "gamma 2.2": lambda image: 255 * (image / 255) ** 2.2,
    "another protocol: sharpened": _sharpened,
}
BEDSIDE = "another protocol: AP for PA"
DRIFT = "slow drift, 1 SD in a year"


@dataclass(frozen=True, eq=False)
class Pool:
    """What the pack says of films: a row each, logits and then the distance."""

    names: tuple[str, ...]
    of_PA: Mapping[str, NDArray[np.float64]]
    """Plain ("") and altered films of the same patients, [240, C + 1]."""
    of_AP: NDArray[np.float64]


def score_films(shared: Path, folder: Path) -> Pool:
    """Score real films, plain and altered; what a folder has already is read."""
    import pyarrow.parquet as pq

    import medclip

    tables = {}
    for number, name in enumerate(("", *ALTERATIONS)):
        out = folder / f"scores-{number}"
        if not (out / "run.json").exists():
            with tempfile.TemporaryDirectory() as films:
                _write_films(shared / "data" / "nih_cxr", Path(films), ALTERATIONS.get(name))
                medclip.score(films, out=out, thumbnails=False)
        files = pq.read_table(out / "files.parquet", columns=["path", "study", "home_distance"]).to_pandas()
        scores = pq.read_table(out / "scores.parquet").to_pandas()
        wide = scores.assign(question=scores["task"] + ": " + scores["class"])
        wide = wide.pivot(index="study", columns="question", values="logit")
        tables[name] = files.set_index("study").join(wide).sort_values("path").set_index("path")
    names = tuple(column for column in tables[""].columns if column != "home_distance")
    columns = [*names, "home_distance"]
    of_view = {
        name: {view: table[table.index.str.startswith(view)][columns].to_numpy() for view in ("PA", "AP")}
        for name, table in tables.items()
    }
    return Pool(names, {name: of["PA"] for name, of in of_view.items()}, of_view[""]["AP"])


def _write_films(source: Path, folder: Path, alter: Callable[[Image], Image] | None) -> None:
    """Write films as DICOM files, one of each patient."""
    import pandas as pd
    from PIL import Image as Pillow
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    labels = pd.read_csv(source / "labels.csv")
    for view, num in (("PA", NUM_PA), ("AP", NUM_AP if alter is None else 0)):
        films = labels.loc[labels["view"] == view].drop_duplicates(subset=["patient_id"]).head(num)
        for name, patient in zip(films["file"], films["patient_id"], strict=True):
            pixels = np.asarray(Pillow.open(source / name).convert("L"), np.float64)
            pixels = np.clip(np.round(pixels if alter is None else alter(pixels)), 0, 255).astype(np.uint8)
            meta, header = FileMetaDataset(), Dataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
            meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
            header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
            header.Modality, header.PatientID, header.ViewPosition = "CR", str(patient), view
            header.BodyPartExamined, header.PhotometricInterpretation = "CHEST", "MONOCHROME2"
            header.Rows, header.Columns = pixels.shape
            header.SamplesPerPixel, header.PixelRepresentation = 1, 0
            header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7
            header.PixelData, header.file_meta = pixels.tobytes(), meta
            header.save_as(folder / f"{view}-{Path(name).stem}.dcm", enforce_file_format=True)


def made_pool(seed: int = 0) -> Pool:
    """Return a pool of made values, for tests: gamma raises the first class by 0.9 standard deviations."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(NUM_PA + NUM_AP, 1))
    values = 0.6 * level + 0.8 * rng.normal(size=(NUM_PA + NUM_AP, 4))
    plain = values[:NUM_PA]
    raised = plain + np.array([0.9, 0, 0, 0])
    return Pool(("chest: a", "chest: b", "chest: c"), {"": plain, "gamma 2.2": raised}, values[NUM_PA:])


def year(pool: Pool, change: str, num_reference: int, rng: np.random.Generator) -> tuple[Watched, Periods]:
    """Draw the weeks of a reference and of a year; the first are named before week 1."""
    rows = []
    last: list[tuple[int, int, bool, int]] = []
    patient = 0
    for week in range(num_reference + WEEKS):
        this_week = []
        for scanner in range(len(SCANNERS)):
            for _ in range(rng.poisson(A_WEEK)):
                of_before = [one for one in last if one[1] == scanner]
                if of_before and rng.random() < RETURNS:
                    one = of_before[rng.integers(len(of_before))]
                else:
                    is_pa = scanner == 1 or rng.random() < 0.6
                    film = int(rng.integers(NUM_PA if is_pa else NUM_AP))
                    one = (patient, scanner, bool(is_pa), film)
                    patient += 1
                this_week.append(one)
                rows.append((week, *one))
        last = [*last[-100:], *this_week]
    week_N, patient_N, scanner_N, is_pa_N, film_N = (np.array(column) for column in zip(*rows, strict=True))
    values = np.where(is_pa_N[:, None], pool.of_PA[""][film_N % NUM_PA], pool.of_AP[film_N % NUM_AP])
    since = week_N - num_reference - CHANGE_WEEK + 1
    changed = (scanner_N == 1) & (since >= 0)
    if change in pool.of_PA and change:
        values[changed] = pool.of_PA[change][film_N[changed]]
    elif change == BEDSIDE:
        values[changed] = pool.of_AP[film_N[changed] % NUM_AP]
    elif change == DRIFT:
        values[changed, 0] += since[changed, None][:, 0] / WEEKS * pool.of_PA[""][:, 0].std()
    return _watched(
        pool, values, week_N, patient_N, scanner_N, is_pa_N, rng.random(len(week_N)) < FAILED, num_reference
    )


def _watched(
    pool: Pool,
    values: NDArray[np.float64],
    week_N: NDArray[Any],
    patient_N: NDArray[Any],
    scanner_N: NDArray[Any],
    is_pa_N: NDArray[Any],
    failed_N: NDArray[np.bool_],
    num_reference: int,
) -> tuple[Watched, Periods]:
    week_name = np.array([f"{2020 + w // 50}-W{w % 50 + 1:02}" for w in range(num_reference + WEEKS)], dtype=object)
    weeks = week_name[week_N]
    plain = dict.fromkeys(UNIT_FACTS, np.full(len(week_N), NOT_STATED, dtype=object))
    facts = plain | {
        "modality": np.full(len(week_N), "xray", dtype=object),
        "scanner": np.array(SCANNERS, dtype=object)[scanner_N],
        "site": np.array(SITES, dtype=object)[scanner_N],
        "view": np.where(is_pa_N, "PA", "AP").astype(object),
    }
    run = np.zeros(len(week_N), np.int64)
    status = np.where(failed_N, "failed", SCORED).astype(object)
    units = Units(
        patient_N,
        status,
        np.where(failed_N, "truncated", "").astype(object),
        facts,
        np.where(failed_N, np.nan, values[:, -1]),
        weeks,
        run,
    )
    good = ~failed_N
    studies = np.arange(len(week_N)).astype(object)[good]
    of_good = {name: of[good] for name, of in facts.items()}
    questions = tuple(
        Question(
            name.split(": ")[0],
            name.split(": ")[1],
            "multilabel",
            studies,
            patient_N[good],
            1 / (1 + np.exp(-values[good, place])),
            values[good, place],
            weeks[good],
            run[good],
            of_good,
        )
        for place, name in enumerate(pool.names)
    )
    periods = Periods("week", tuple(week_name[num_reference:]))
    return Watched(("year",), ("pack",), units, questions, None), periods


def split(watched: Watched, periods: Periods) -> tuple[Watched, Watched]:
    """Return the watched weeks and the reference, as two sets of results."""
    from dataclasses import replace

    def part(week: NDArray[Any], is_watched: bool) -> NDArray[np.bool_]:
        return np.isin(week.astype(str), periods.names) == is_watched

    parts = []
    for is_watched in (True, False):
        u = part(watched.units.week_U, is_watched)
        units = Units(
            **{n: getattr(watched.units, n)[u] for n in ("patients_U", "status_U", "reason_U")},
            facts={name: of[u] for name, of in watched.units.facts.items()},
            **{n: getattr(watched.units, n)[u] for n in ("distance_U", "week_U", "run_U")},
        )
        questions = []
        for q in watched.questions:
            rows = part(q.week_N, is_watched)
            arrays = {n: getattr(q, n)[rows] for n in _OF_QUESTION}
            questions.append(replace(q, **arrays, facts={name: of[rows] for name, of in q.facts.items()}))
        parts.append(replace(watched, units=units, questions=tuple(questions)))
    return parts[0], parts[1]


_OF_QUESTION = ("studies_N", "patients_N", "probability_N", "logit_N", "week_N", "run_N")


@dataclass(frozen=True)
class Year:
    """What was said of one year, in weeks from 1."""

    alarms: tuple[tuple[int, str, str], ...]
    """Week, fact and stratum of each event's leader."""
    joined: tuple[tuple[int, str], ...]
    """Week and stratum of every chart that alarmed."""
    flagged: tuple[int, ...]
    """Weeks that the comparison of everything flags."""


def look_at(pool: Pool, change: str, num_reference: int, seed: int, rate: float = 1.0, before: bool = True) -> Year:
    """Draw a year and watch it."""
    rng = np.random.default_rng([seed, num_reference, len(change)])
    watched, reference = split(*(drawn := year(pool, change, num_reference, rng)))
    periods = drawn[1]
    week_of = {name: place for place, name in enumerate(periods.names, 1)}
    result = alarms_of(watched, reference, periods, rate=rate, num_resamples=50, seed=seed)
    leaders = {}
    for alarm in result.alarms:
        leaders.setdefault(alarm.event, (week_of[alarm.period], alarm.fact, alarm.stratum))
    joined = tuple((week_of[alarm.period], alarm.stratum) for alarm in result.alarms)
    flagged: set[int] = set()
    if before:
        changes = changes_of(watched, reference, periods, num_resamples=200, seed=seed)
        flagged = {week_of[one.period] for one in changes if one.size in ("clear", "large")}
    return Year(tuple(leaders.values()), joined, tuple(sorted(flagged)))


def rate_interval(num: int, years: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a Poisson rate."""
    from scipy.special import gammaincinv

    return (gammaincinv(num, 0.025) if num else 0.0) / years, gammaincinv(num + 1, 0.975) / years


def delays(years: list[Year]) -> list[tuple[float, bool]]:
    """Return how many weeks it took (1: the week of the change), and whether the first alarm names the scanner."""
    taken = []
    for one in years:
        of_scanner = [week for week, stratum in one.joined if stratum == CHANGED and week >= CHANGE_WEEK]
        leaders = [leader for leader in one.alarms if leader[0] >= CHANGE_WEEK]
        named = bool(leaders) and leaders[0][2] == CHANGED
        taken.append((min(of_scanner) - CHANGE_WEEK + 1 if of_scanner else math.inf, named))
    return taken


def _row(name: str, weeks: list[float], more: str = "") -> str:
    values = np.array(weeks)
    median = float(np.median(values))
    shown = f"{median:.0f}" if math.isfinite(median) else "none"
    return f"  {name:34} {shown:>6} {100 * np.mean(values <= 4):5.0f} % {100 * np.mean(values <= 12):5.0f} % {more}"


def main() -> int:
    """Print both tables; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=100)
    parser.add_argument("--compared-years", type=int, default=25, help="those that are also watched as before: slow")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--scores", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--reference", type=int, default=0, choices=(0, *REFERENCES.values()))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    start, faults = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        pool = score_films(args.shared, args.scores or Path(folder))
    seeds = range(args.seed, args.seed + args.years)
    compared = seeds[: args.compared_years]
    references = {title: num for title, num in REFERENCES.items() if args.reference in (0, num)}
    with ProcessPoolExecutor(args.processes) as executor:
        for title, num in references.items():
            years = list(executor.map(look_at, *_spread(pool, "", num, seeds, args.rate, compared), chunksize=4))
            false = sum(len(one.alarms) for one in years)
            low, high = rate_interval(false, len(years))
            flagged = np.mean([len(one.flagged) for one in years[: len(compared)]])
            with_one = np.mean([bool(one.flagged) for one in years[: len(compared)]])
            print(
                f"quiet, reference of {title}: {false / len(years):.2f} false alarms a year ({low:.2f} to {high:.2f})"
            )
            print(f"  everything together, as before: {flagged:.2f} flagged weeks a year, in {100 * with_one:.0f} %")
            if low > args.rate:
                faults.append(f"{title}: {false / len(years):.2f} false alarms a year")
            print(f"  {'from week 20, reference ' + title:34} median  4 weeks  12 weeks  led by the scanner")
            for change in (*ALTERATIONS, BEDSIDE, DRIFT):
                years = list(
                    executor.map(look_at, *_spread(pool, change, num, seeds, args.rate, compared), chunksize=4)
                )
                taken = delays(years)
                named = np.mean([name for _, name in taken])
                print(_row(change, [weeks for weeks, _ in taken], f"{100 * named:5.0f} %"), flush=True)
                flagged = [[w for w in one.flagged if w >= CHANGE_WEEK] for one in years[: len(compared)]]
                before = [min(weeks, default=math.inf) - CHANGE_WEEK + 1 for weeks in flagged]
                print(_row("  everything together, as before", before), flush=True)
                within = float(np.mean([weeks <= 12 for weeks, _ in taken]))
                if change != DRIFT and num == 26 and within < 0.9:
                    faults.append(f"{change}: {100 * within:.0f} % within 12 weeks")
    print(f"\n{args.years} years of each, {time.perf_counter() - start:.0f} s; promises broken: {faults}")
    return int(bool(faults))


def _spread(pool: Pool, change: str, num: int, seeds: range, rate: float, compared: range) -> tuple[Any, ...]:
    same = ([one] * len(seeds) for one in (pool, change, num))
    return *same, list(seeds), [rate] * len(seeds), [seed in compared for seed in seeds]


if __name__ == "__main__":
    sys.exit(main())
