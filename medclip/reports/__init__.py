"""Pages of results, each one HTML file, and what commands print of them; forms of other systems are in `export`."""
