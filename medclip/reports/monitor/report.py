"""Write the page of watched runs: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from pathlib import Path

from medclip.files.output import write_file
from medclip.monitoring.run import REPORT, Monitored
from medclip.reports.html_page import render_page
from medclip.reports.monitor.page import view
from medclip.wording import count, number

_STYLES = ("style.css", "pretrain/page.css", "monitor/page.css")


def write_monitor_report(result: Monitored, folder: Path) -> Path:
    """Write report.html into a folder.

    Args:
        result: Comparison with its findings.
        folder: Folder of the report.

    Returns:
        Its path.

    Raises:
        MedclipError: As `medclip.files.output.disk_errors`.
    """
    path = folder / REPORT
    helpers = {"count": count, "thousands": number}
    write_file(path, render_page("monitor/page.html.j2", _STYLES, {"page": view(result), "result": result}, helpers))
    return path
