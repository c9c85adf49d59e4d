"""Files tied into units, series and studies."""
