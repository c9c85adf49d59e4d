"""Metrics and calibration, for one sample and for many resamples; their intervals are in `resampling`."""
