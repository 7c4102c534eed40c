"""Custody certificates: what the catalogue knows of a run, signed, to be checked without the catalogue."""
