"""End-of-run data mover: one checksummed bundle a run, proven safe on Grid storage."""
