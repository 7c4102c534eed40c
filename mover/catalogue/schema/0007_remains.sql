-- Attempts that are over, and of which the batch system is still to be told to forget what it keeps: a compute element has
-- their files and the keys of delegated proxies.

CREATE TABLE remains (
    batch           TEXT NOT NULL,
    batch_id        TEXT NOT NULL,
    name            TEXT NOT NULL,       -- the attempt's
    since           TEXT NOT NULL,
    tries           INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    problem         TEXT,                -- why the last try failed
    PRIMARY KEY (batch, batch_id)
) STRICT;

CREATE INDEX remains_due ON remains (next_attempt_at);
