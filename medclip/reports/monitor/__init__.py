"""The page of runs that are watched over months."""
