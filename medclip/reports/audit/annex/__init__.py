"""The parts of the page behind its first two printed pages: figures, tables and methods."""
