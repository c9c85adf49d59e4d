"""`medclip slides`: the stages of a folder of slides, and what is learned, answered and written of their vectors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from medclip.api import slides as verbs
from medclip.cli.derive import derive
from medclip.cli.run_reasons import interrupted
from medclip.wording import count, number

if TYPE_CHECKING:
    from medclip.slides.stages.run_stage import StageRun


def print_stage(ended: StageRun, as_json: bool, _: Any) -> int:
    """Print how the slides ended, why some were passed over, and where time went."""
    from medclip.errors import printable
    from medclip.slides.stages.run_stage import reasons_of
    from medclip.wording import percent

    if as_json:
        print(json.dumps(ended.to_dict()))
        return ended.exit_code
    if ended.already_finished:
        print("This run was finished before; nothing was computed again.")
    counts = ended.counts
    parts = [f"{count(len(ended.rows), 'slide')}: {number(counts['done'])} done"]
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    print(f"{', '.join(parts)}.")
    for status, reason, num in reasons_of(ended.rows):
        print(f"  {num:>7} {status}: {reason.replace('_', ' ')}")
    others = ended.num_files - sum(row.num_files for row in ended.rows)
    if others:
        print(f"{count(others, 'file')} in the folder {'is' if others == 1 else 'are'} of no slide.")
    if num_failed := ended.num_failed - sum(row.num_files for row in ended.rows if row.status == "failed"):
        print(f"{number(num_failed)} of them failed; files.parquet says why.")
    if ended.num_lost:
        print(f"{count(ended.num_lost, 'patch', 'patches')} cannot be read: stored pixels are damaged.")
    if ended.stage == "embed" and ended.time:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in ended.time["shares"].items())
        rate = ended.time["patches_per_s"]
        print(f"{rate:.0f} patches a second; work: {shares}. The model waited {percent(ended.time['data_wait'])}.")
    what = "" if ended.stage == "tissue" else f"{count(ended.num_patches, 'patch', 'patches')}, "
    print(f"{what}in {printable(str(ended.folder))}")
    return ended.exit_code


def print_learned(learned: Any, as_json: bool, _: Any) -> None:
    """Print what was learned, and how well patients that were left out are answered for."""
    from medclip.errors import printable
    from medclip.wording import estimate

    if as_json:
        print(json.dumps(learned.to_json()))
        return
    print(f"Learned from {count(learned.num_slides, 'slide')} of {count(learned.num_patients, 'patient')}.")
    for row in learned.to_json()["figures"]:
        what = row["pooling"] if row["minus"] is None else f"{row['pooling']} minus {row['minus']}"
        print(f"{what}, {row['metric']}: {estimate(row['value'], row['low'], row['high'])}")
    for note in learned.notes:
        print(note)
    print(f"Head: {printable(str(learned.out))}")


def print_predictions(predictions: Any, as_json: bool, _: Any) -> int:
    """Print how many slides have which answer."""
    from medclip.errors import printable
    from medclip.result import named_counts

    facts = predictions.to_json()
    if as_json:
        print(json.dumps({**facts, "exit_code": predictions.exit_code}))
        return predictions.exit_code
    print(f"{predictions.question}: {named_counts(facts['answers'])}.")
    print(f"Slides: {named_counts(predictions.counts)}.")
    for note in predictions.notes:
        print(note)
    out = predictions.out
    print(f"Answers: {printable(str(out / 'predictions.csv'))}, maps: {printable(str(out / 'maps'))}")
    return predictions.exit_code


def print_export(exported: Any, as_json: bool, _: Any) -> int:
    """Print how many slides were written, and where it says which is which."""
    from medclip.errors import printable
    from medclip.result import named_counts

    if as_json:
        print(json.dumps({**exported.to_json(), "exit_code": exported.exit_code}))
        return exported.exit_code
    print(f"Slides: {named_counts(exported.counts)}, as {exported.format}.")
    print(f"Which slide a key is: {printable(str(exported.out / 'slides.csv'))}")
    return exported.exit_code


_OF_STAGES = "0 all done or skipped, 3 some failed"
_OF_SLIDES = "0 no slide failed, 3 some did (they have a row with the reason)"
tissue = derive(verbs.tissue, print_stage, exit_codes=_OF_STAGES, interrupted=interrupted)
patches = derive(verbs.places, print_stage, exit_codes=_OF_STAGES, interrupted=interrupted)
embed = derive(verbs.embed, print_stage, exit_codes=_OF_STAGES, interrupted=interrupted)
learn = derive(verbs.learn, print_learned, exit_codes="0 done")
predict = derive(verbs.predict, print_predictions, exit_codes=_OF_SLIDES)
export = derive(verbs.export, print_export, exit_codes=_OF_SLIDES)
