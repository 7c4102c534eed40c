"""The catalogue: every fact about runs, bundles and replicas, in SQLite, with its custody records."""
