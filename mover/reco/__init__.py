"""Every run reconstructed by jobs, and their output proven."""
