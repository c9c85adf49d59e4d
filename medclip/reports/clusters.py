"""Show clusters of images as one page, a sheet each, for those who label them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from medclip.pairs.concepts.cluster_labels import KINDS, read_taxonomy
from medclip.pairs.concepts.image_clusters import Clusters, Sheet
from medclip.reports.html_page import render_page
from medclip.version import __version__


def render_clusters(clusters: Clusters, sheets: Sequence[Sheet]) -> str:
    """Render the page. It names no file and no patient."""
    terms = read_taxonomy(None)
    values = {
        "clusters": clusters,
        "sheets": [(one, [base64.b64encode(image).decode() for image in one.images]) for one in sheets],
        "taxonomy": [(kind, terms[kind]) for kind in KINDS],
        "version": __version__,
    }
    return render_page("clusters.html.j2", ("style.css", "clusters.css"), values)
