"""The verb `pairs rewrite`: what reports say is cleaned, edited and weighed to train on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.reading import TextTables
from medclip.api.groups.running import Device, Recipe, Told
from medclip.api.pathgen import KEY_VARIABLE, AskedModel, asks_nobody
from medclip.options import argument, needs, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.words.reports.report_agents import ReportAgent
    from medclip.pairs.words.reports.rewriting import RewriteResult

AGENTS = ("rules", "endpoint", "local")


@options
class RewriteOptions(Told, Recipe, TextTables, Device, AskedModel):
    """What `rewrite` is asked."""

    pairs: str | Path = argument("Shards that medclip built, or a table of reports, captions or labels.", place=True)
    out: str | Path = argument(
        "Folder to write: rewritten.parquet, report.json and, of shards, `shards`.",
        form="DIR",
        named=True,
        place=True,
    )
    steps: str | Path | None = option(
        "YAML file of what is done: modality and columns of a table, words, weights, negatives.",
        default=None,
        form="FILE",
        often=True,
        place=True,
    )
    agent: str = option(
        "Who rewrites. Rules need no model; an endpoint is an OpenAI-compatible API; a local agent is a "
        "vision-language model in a folder.",
        default="rules",
        choices=AGENTS,
        form="NAME",
        often=True,
    )

    rules = (
        asks_nobody("is_by_rules", "rules ask no endpoint and no model."),
        needs("asks_endpoint", "endpoint", "there is no endpoint to ask.", hint="Name its address: --endpoint URL."),
    )

    @property
    def is_by_rules(self) -> bool:
        """Whether no model writes."""
        return self.agent == "rules"

    @property
    def asks_endpoint(self) -> bool:
        """Whether an endpoint writes."""
        return self.agent == "endpoint"


@verb(RewriteOptions)
def rewrite(options: RewriteOptions) -> RewriteResult:
    """Rewrite the words of image-text pairs: cleaned, long and short texts, negatives by one change, tags, weights.

    Findings and impression are kept without placeholders, names, dates and what compares with earlier studies. A
    negative is false of its image by exactly one change, and each change is made as often as its reverse. A classifier
    that sees words alone is asked whether it tells the false texts; the result leads with a caution where it does.

    Returns:
        Counts, the check, and where the files lie.

    Raises:
        MedclipError: RECIPE_INVALID for the steps; TABLE_INVALID, MISSING_FILE or WRONG_USE for what is read;
            OUTPUT_IN_USE for a folder of other rewritten captions; READ_ERROR for an endpoint that is gone, after which
            the same call goes on.

    Example:
        >>> import medclip
        >>> medclip.pairs.rewrite("reports.csv", "rewritten").num_negatives  # doctest: +SKIP
    """
    from medclip.files.tables.table import TextForm
    from medclip.pairs.words.reports.rewrite_steps import read_steps
    from medclip.pairs.words.reports.rewriting import Rewriting, rewrite

    path = None if options.steps is None else Path(options.steps)
    steps = read_steps(path)
    model = None
    if steps.captions.model is not None:
        from medclip.models.packs.pack import load_model

        model = load_model(steps.captions.model, device=options.device)
    form, agent = TextForm(options.encoding), _agent(options, steps.max_words)
    rewriting = Rewriting(
        Path(options.pairs), Path(options.out), steps, agent, form, Path() if path is None else path.parent
    )
    return rewrite(rewriting, model, options.progress)


def _agent(options: RewriteOptions, max_words: int) -> ReportAgent | None:
    if options.agent == "rules":
        return None
    from medclip.pairs.words.asking_agents import EndpointAgent, LocalAgent
    from medclip.pairs.words.reports.report_agents import ReportAgent

    if options.agent == "endpoint":
        key = os.environ.get(KEY_VARIABLE, "")
        return ReportAgent(EndpointAgent(options.endpoint or "", options.endpoint_model or "", key=key), max_words)
    assert options.vlm is not None
    return ReportAgent(LocalAgent(Path(options.vlm), options.device), max_words)
