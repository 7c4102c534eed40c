"""VOMS: which servers a VO has, attribute certificates fetched from them, and what makes one acceptable."""

MAX_AC_BYTES = 32 * 1024
"""How long an attribute certificate may be (DER). Real ones have two to ten kilobytes."""
