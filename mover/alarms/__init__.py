"""What somebody should know of now: what needs a person, what is stuck, what is about to run out."""
