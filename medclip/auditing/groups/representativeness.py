"""Do the audited patients look like those whom the model is meant for? Shares of groups against a reference table.

Patients are counted, not rows; one whose rows are in several groups (views, scanners) counts in each by the share of
rows. Blanks are no group and are left out on both sides.

- The Jensen-Shannon distance (base 2) is 0 for equal shares and 1 where no group is in both. It is above 0 by chance
  alone, so the 95th percentile of what as many patients drawn from the reference would have stands beside it.
- The standardised difference of a group is (p − q)/√((p(1 − p) + q(1 − q))/2); 0.1 is commonly taken as small.

References: Lin, IEEE Trans. Inf. Theory 37 (1991) 145-151; Austin, Commun. Stat. Simul. Comput. 38 (2009) 1228-1234.

And who took no part: the rows after each step (`flow`), those without a score (`unscored`) and without a label
(`unlabelled`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.disclosure import Rounding, count_patients
from medclip.auditing.groups.measure import Measured, Row, adjust, exported, rounded_values, short
from medclip.auditing.input.groups import kind_of, sex_of
from medclip.auditing.input.missing import LEAST_ROWS
from medclip.auditing.options import MeasureOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table, is_blank, listed, plain_name
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Attribute, Cohort, Missing
from medclip.statistics.resampling.intervals import wilson
from medclip.wording import list_of

Floats = NDArray[np.float64]
_DRAWS = 2000
_OFF = 0.02
"""What shares may miss 1 by, from rounding."""
_Z = 1.959964


def read_reference(table: Table) -> dict[str, dict[str, float]]:
    """Read shares by attribute and group from the columns attribute, group, and share or count.

    Raises:
        MedclipError: TABLE_INVALID for columns or numbers that are something else.
    """
    attributes, groups = (table.coded(table.need(name, "of a reference")) for name in ("attribute", "group"))
    column = table.find("share", "count", "n")
    if column is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"a reference has a column share or count. {listed(table.names, 'Columns')}",
            where=table.where,
        )
    sizes: dict[str, dict[str, float]] = {}
    for attribute, group, size in zip(
        attributes.texts_N(), groups.texts_N(), table.numbers(column, "a share or count"), strict=True
    ):
        if is_blank(group):
            continue
        if not (math.isfinite(size) and size >= 0) or group in sizes.setdefault(str(attribute), {}):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"the group {group!r} of {attribute!r} is there twice, or its {column} is no number of 0 or more.",
                where=table.where,
            )
        sizes[str(attribute)][str(group)] = float(size)
    for attribute, shares in sizes.items():
        total = sum(shares.values())
        is_share = plain_name(column) == "share"
        if not total > 0 or (is_share and min(abs(total - 1), abs(total / 100 - 1)) > _OFF):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"the shares of {attribute!r} add up to {total:g}, and not to 1 (or 100).",
                where=table.where,
                hint="Name every group, or give counts in a column count.",
            )
        sizes[attribute] = {group: size / total for group, size in shares.items()}
    return sizes


def representation_rows(measured: Measured, options: MeasureOptions) -> list[Row]:
    """Return the table `representation`: each group's share of patients beside its reference, then the distance.

    Raises:
        MedclipError: What `read_reference` raises; TABLE_INVALID where an attribute has no group in common.
    """
    if options.reference is None:
        return []
    reference = {plain_name(name): of_attribute for name, of_attribute in read_reference(options.reference).items()}
    rows: list[Row] = []
    for attribute in measured.cohort.attributes:
        of_attribute = reference.get(plain_name(attribute.name))
        if of_attribute is not None:
            rows += _rows(measured, attribute, of_attribute, options, options.reference.where)
    if not rows:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the reference is about {list_of(list(reference))}, and none of it is audited.",
            where=options.reference.where,
            hint=f"Audited are groups by {list_of([a.name for a in measured.cohort.attributes]) or 'nothing (--by)'}.",
        )
    return rows


def _rows(
    measured: Measured, attribute: Attribute, shares: Mapping[str, float], options: MeasureOptions, where: str
) -> list[Row]:
    names = [name for name in attribute.groups if name not in (MISSING, CONFLICT)]
    by_name = {_as_read(attribute.name, name): share for name, share in shares.items()}
    if not any(_as_read(attribute.name, name) in by_name for name in names):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the reference for {attribute.name!r} has none of the groups {list_of(names, most=10)}.",
            where=where,
            hint="Write groups as the audit does; its page has them.",
        )
    audited = {_as_read(attribute.name, name) for name in names}
    absent = [name for name in shares if _as_read(attribute.name, name) not in audited]
    patients_G = _patients(measured.cohort, attribute)
    persons_G = count_patients(
        attribute.codes_N, measured.cohort.patients_N, len(attribute.groups), measured.cohort.num_patients
    )
    stated = [attribute.groups.index(name) for name in names]
    total = float(patients_G[stated].sum())
    ours_G = np.array([*(patients_G[stated] / total), *(0.0 for _ in absent)])
    theirs_G = np.array([*(by_name.get(_as_read(attribute.name, n), 0.0) for n in names), *(shares[n] for n in absent)])
    low_G, high_G = wilson(ours_G, np.full(len(ours_G), total), np.full(len(ours_G), _Z))
    rounding = measured.roundings.of(attribute.name)
    rows: list[Row] = []
    for g, name in enumerate([*names, *absent]):
        head: Row = {"model": measured.name, "attribute": attribute.name, "group": name, "reference": theirs_G[g]}
        num = int(persons_G[stated[g]]) if g < len(stated) else 0
        if 0 < num < options.small_cells.min_patients:
            rows.append({**head, "flag": "suppressed"})
            continue
        p, q = float(ours_G[g]), float(theirs_G[g])
        spread = math.sqrt((p * (1 - p) + q * (1 - q)) / 2)
        apart = (p - q) / spread if spread > 0 else (0.0 if p == q else math.nan)
        values = rounded_values(rounding, max(num, 1), p, float(low_G[g]), float(high_G[g]))
        apart = apart if rounding.base == 1 else round(apart, 2)
        rows.append({**head, **values, "standardised": apart, "n_patients": exported(rounding, num), "flag": ""})
    distance = _distance(ours_G, theirs_G)
    by_chance = _by_chance(theirs_G, round(total), options.seed)
    rows.append(
        {
            **{"model": measured.name, "attribute": attribute.name, "group": ALL, "flag": ""},
            "distance": distance if rounding.base == 1 else round(distance, 2),
            "distance_by_chance": by_chance,
            "n_patients": exported(rounding, round(total)),
        }
    )
    return rows


def _as_read(attribute: str, group: str) -> str:
    """Return what groups are compared by: female and F are one, and so are A-1 and a 1."""
    return plain_name(sex_of(group) if kind_of(attribute) == "sex" else group)


def _patients(cohort: Cohort, attribute: Attribute) -> Floats:
    """Count patients in each group; who is in several counts in each by the share of rows."""
    rows_P = np.bincount(cohort.patients_N, minlength=cohort.num_patients)
    weight_N = 1 / rows_P[cohort.patients_N]
    return np.bincount(attribute.codes_N, weight_N, minlength=len(attribute.groups)).astype(np.float64)


def _distance(ours_G: Floats, theirs_G: Floats) -> float:
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(ours_G, theirs_G, base=2))


def _by_chance(theirs_G: Floats, num_patients: int, seed: int) -> float:
    """Return the 95th percentile of the distance of as many patients drawn from the reference."""
    from scipy.spatial.distance import jensenshannon

    drawn_BG = np.random.default_rng(seed).multinomial(max(num_patients, 1), theirs_G, size=_DRAWS) / max(
        num_patients, 1
    )
    return float(np.quantile(jensenshannon(drawn_BG.T, theirs_G[:, None], base=2), 0.95))


_SHARE = ("value", "low", "high")
_DIFFERENCE = ("difference", "difference_low", "difference_high")


def flow_rows(measured: Measured) -> list[Row]:
    """Return the table `flow`: rows after each step of reading, then for each label those with a truth and a score."""
    cohort = measured.cohort
    steps = [("", step, n) for step, n in cohort.steps]
    for label in cohort.labels:
        num_truths = int((~np.isnan(label.truth_N)).sum())
        steps += [
            (label.name, "with a truth", num_truths),
            (label.name, "with truth and score", int(label.valid_N.sum())),
        ]
    return [
        {"model": measured.name, "label": label, "step": step, "n": exported(measured.roundings.of(ALL), n)}
        for label, step, n in steps
    ]


def score_value_rows(measured: Measured) -> list[Row]:
    """Return the table `score_values`: different scores of each label and risk, and predicted classes of each grading.

    Counted over the rows with a truth, which are those that are measured.
    """
    cohort = measured.cohort
    values = [(x.name, x.score_N[x.valid_N]) for x in cohort.labels]
    values += [(r.name, r.risk_NK[r.valid_N]) for r in cohort.risks]
    values += [(o.name, o.predicted_N[o.valid_N]) for o in cohort.ordinals]
    rounding = measured.roundings.of(ALL)
    return [
        {
            "model": measured.name,
            "label": name,
            "n": exported(rounding, len(each)),
            "n_values": len(np.unique(each, axis=0)),
        }
        for name, each in values
    ]


def unscored_rows(measured: Measured, options: MeasureOptions) -> list[Row]:
    """Return the table `unscored`: everybody and each group, with a row for all reasons (blank) and one for each."""
    return _missing_rows(measured, options, measured.cohort.unscored, "n_unscored", f"never scored, {measured.name}")


def unlabelled_rows(measured: Measured, options: MeasureOptions) -> list[Row]:
    """Return the table `unlabelled`: each label that a scored row lacks, in everybody, by score and in each group."""
    return _missing_rows(
        measured, options, measured.cohort.unlabelled, "n_unlabelled", f"without a label, {measured.name}"
    )


def _missing_rows(
    measured: Measured, options: MeasureOptions, every: Sequence[Missing], column: str, family: str
) -> list[Row]:
    """Write what is missing as rows; `column` has the number of rows that lack it.

    Counts of a few rows are blank, and shares of a few are whole per cent, of groups of `LEAST_ROWS` and more.
    """
    rows: list[Row] = []
    cells, floor = options.small_cells, options.small_cells.floor
    names = {a.name for a in measured.cohort.attributes}
    for one in every:
        rounding = measured.roundings.of(one.attribute if one.attribute in names else ALL)

        def counted(n: int, rounding: Rounding = rounding) -> int | None:
            return None if 0 < n < floor else exported(rounding, n)

        head = {"model": measured.name, "attribute": one.attribute, "group": one.group, "reason": "", "flag": ""}
        head |= {"label": one.label} if one.label else {}
        few = 0 < one.num_missing < floor
        if one.num_rows < (LEAST_ROWS if few else cells.min_n) or one.num_patients < cells.min_patients:
            rows.append({**head, "flag": "suppressed"})
            continue
        counts = {"n": counted(one.num_rows), "n_patients": counted(one.num_patients), column: counted(one.num_missing)}
        tested = {} if np.isnan(one.p) else {"p": one.p, "family": family}
        rows.append({**head, **counts, **_shares(rounding, one, few), **tested})
        rows += [
            {**head, "reason": reason, column: counted(n)}
            for reason, n in sorted(one.reasons.items(), key=lambda item: -item[1])
        ]
    adjust([row for row in rows if "family" in row])
    return [short(measured.roundings.of(row["attribute"]), row) for row in rows]


def _shares(rounding: Rounding, one: Missing, few: bool) -> Row:
    fewest = min(one.num_missing, one.num_rows - one.num_missing)
    share = (one.num_missing / one.num_rows, *one.interval)
    values = dict(zip((*_SHARE, *_DIFFERENCE), map(float, (*share, *one.difference)), strict=True))
    return {name: round(value, 2) if few else rounding.value(value, fewest) for name, value in values.items()}
