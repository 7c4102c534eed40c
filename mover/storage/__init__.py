"""Adapters of the StorageEndpoint port. gfal2 is imported nowhere else."""
