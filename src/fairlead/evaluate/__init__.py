"""Measuring a model and showing what a stage changed: probes, statistics, charts, one-file reports."""
