"""Measurements: netd beside a real Docker engine, on one machine, in one run."""
