"""The steps of the data way. Each does one thing between two commits; the engine decides when."""
