"""Look at every page of the built site in a headless Chromium, at the width of a desk and of a telephone.

Usage: python -m pipelines.docs_site.look SITE [--widths 1280,390] [--shots FOLDER [--pages a.html,b.html]]

For each page and width: what reaches beyond the right edge although nothing around it scrolls, images that are not
there, and addresses of other machines that the page would load. The browser is started once and shows each page in a
frame of that width, which is what the style sheets go by: a window of its own cannot be as narrow as a telephone.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
TIMEOUT_S = 450

MEASURE = """
const results = [];
function scrolls(element) {
  for (let e = element.parentElement; e && e.tagName !== "BODY"; e = e.parentElement) {
    const style = e.ownerDocument.defaultView.getComputedStyle(e);
    if (["auto", "scroll"].includes(style.overflowX) || style.position === "fixed") return true;
  }
  return false;
}
function measure(frame, page, width) {
  const inside = frame.contentDocument, wide = [];
  for (const element of inside.querySelectorAll("article *")) {
    const right = element.getBoundingClientRect().right;
    if (right > width + 1 && !scrolls(element)) {
      const text = element.textContent.trim().slice(0, 60);
      wide.push(`${element.tagName.toLowerCase()} to ${Math.round(right)} px: ${text}`);
    }
  }
  const missing = [...inside.images].filter(i => i.complete && i.naturalWidth === 0).map(i => i.getAttribute("src"));
  const page_px = inside.documentElement.scrollWidth;
  const foreign = frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name)
    .filter(name => /^https?:/.test(name));
  results.push({page, width, page_px, wide: wide.slice(0, 5), missing, foreign, title: inside.title});
}
async function show(page, width) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.src = page;
  await new Promise(resolve => { frame.onload = resolve; document.body.append(frame); });
  for (const image of frame.contentDocument.images) image.loading = "eager";
  await new Promise(resolve => setTimeout(resolve, WAIT_MS));
  measure(frame, page, width);
  frame.remove();
}
(async () => {
  for (const page of PAGES) for (const width of WIDTHS) await show(page, width);
  const out = document.createElement("pre");
  out.id = "results";
  out.textContent = JSON.stringify(results);
  document.body.replaceChildren(out);
})();
"""


@dataclass(frozen=True)
class Sight:
    """What a page is like at one width."""

    page: str
    width: int
    page_px: int
    """How far the page can be scrolled to the right, in pixels; more than the width is wrong."""
    wide: tuple[str, ...]
    """Elements that reach beyond the right edge, with where they end."""
    missing: tuple[str, ...]
    """Images that could not be shown."""
    foreign: tuple[str, ...]
    """Addresses of other machines that were asked for."""
    title: str

    def faults(self) -> list[str]:
        """Return what is wrong, in words."""
        faults = [f"{element} is wider than the page" for element in self.wide]
        if self.page_px > self.width and not faults:
            faults.append(f"the page scrolls sideways, {self.page_px} px")
        faults += [f"the image {name} is not there" for name in self.missing]
        faults += [f"it loads {name}" for name in self.foreign]
        return [f"{self.page} at {self.width} px: {fault}" for fault in faults]


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def look_at(site: Path, pages: list[str], widths: tuple[int, ...] = WIDTHS, wait_ms: int = 60) -> list[Sight]:
    """Show pages in a browser and measure them.

    Args:
        site: The folder of the built site.
        pages: Paths of pages in it.
        widths: Widths of the frame, in CSS pixels.
        wait_ms: How long a page is left alone after it was loaded.

    Raises:
        RuntimeError: The browser did not come to an end.
    """
    names = [(site / page).resolve().as_uri() for page in pages]
    script = f"const PAGES = {json.dumps(names)}, WIDTHS = {json.dumps(widths)}, WAIT_MS = {wait_ms};{MEASURE}"
    shown = _browse(script, [f"--virtual-time-budget={len(names) * len(widths) * (wait_ms + 500)}", "--dump-dom"])
    match = re.search(r'<pre id="results">(.*?)</pre>', shown, flags=re.S)
    if match is None:
        raise RuntimeError(f"{site}: the browser did not look at all {len(pages)} pages")
    sights: list[dict[str, Any]] = json.loads(html.unescape(match[1]))
    for sight in sights:
        sight["page"] = sight["page"].partition(f"{site.resolve().as_uri()}/")[2]
        sight |= {name: tuple(sight[name]) for name in ("wide", "missing", "foreign")}
    return [Sight(**sight) for sight in sights]


def write_shot(site: Path, page: str, width: int, out: Path, height: int = 2400) -> None:
    """Write a picture of the upper part of a page as PNG."""
    frame = f'<iframe style="width:{width}px;height:{height}px;border:0" src="{(site / page).resolve().as_uri()}">'
    _browse(
        "", [f"--screenshot={out}", f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=4000"], frame
    )


def _browse(script: str, options: list[str], body: str = "") -> str:
    """Show a page of our own with the site in frames of it, and return what the browser prints."""
    browser = find_browser()
    if browser is None:
        raise RuntimeError("Chromium is needed. Run: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "look.html"
        page.write_text(f"<!doctype html><body style='margin:0'>{body}<script>{script}</script>", encoding="utf-8")
        # The frames are files as this page is; without the option a browser hides their contents from it.
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += [f"--user-data-dir={folder}/profile", "--hide-scrollbars", *options, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


def pages_of(site: Path) -> list[str]:
    """Return the pages of a built site, without the one that is shown where nothing is found."""
    return sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html") if p.name != "404.html")


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)))
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--pages", default="")
    options = parser.parse_args()
    widths = tuple(int(width) for width in options.widths.split(","))
    pages = options.pages.split(",") if options.pages else pages_of(options.site)
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
        for page in pages:
            for width in widths:
                name = page.replace("/", "-").removesuffix(".html").removesuffix("-index")
                write_shot(options.site, page, width, options.shots.resolve() / f"{name}-{width}.png")
        return 0
    faults = [fault for sight in look_at(options.site, pages, widths) for fault in sight.faults()]
    print("\n".join(faults) or f"{len(pages)} pages at {len(widths)} widths: nothing is cut off")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
