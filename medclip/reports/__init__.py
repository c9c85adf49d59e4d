"""One self-contained HTML file per report."""
