"""Files tied into units, series and studies by their headers; no pixel is looked at."""
