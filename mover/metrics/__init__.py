"""Metrics for Prometheus. Nothing has a label for each run: there may be 100,000 of them."""
