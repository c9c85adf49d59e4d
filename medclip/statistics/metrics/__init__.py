"""Metrics and calibration, for one sample and for many resamples."""
