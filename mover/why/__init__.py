"""What a run waits for, in sentences."""
