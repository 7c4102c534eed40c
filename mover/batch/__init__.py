"""Adapters of the batch systems that jobs run in."""
