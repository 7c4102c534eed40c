"""The bundle: a tar that is a pure function of the run's files. See `plan` for what it holds and in which order."""
