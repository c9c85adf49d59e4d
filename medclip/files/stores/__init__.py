"""Files in an object store or behind a web server: listed, fetched, and written whole."""
