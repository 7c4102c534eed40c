-- Bundles get a kind, and need not be made from a run's parts: those that others made before us are adopted. Old runs
-- may want new replicas, which come after the live ones. What is known of an endpoint's health is told to everybody.

PRAGMA defer_foreign_keys = ON;

CREATE TEMPORARY TABLE bundle_before AS SELECT * FROM bundle;

DROP TABLE bundle;

CREATE TABLE bundle (
    id          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES run (number),
    kind        TEXT NOT NULL,       -- mover.model.BundleKind
    lfn         TEXT NOT NULL UNIQUE,
    plan        TEXT,                -- mover.bundle.plan.BundlePlan as JSON; NULL: adopted, not to be made again
    size_bytes  INTEGER NOT NULL,
    adler32     TEXT,                -- NULL until the bundle has been read once
    digested_at TEXT
) STRICT;

CREATE INDEX bundle_run ON bundle (run);

CREATE UNIQUE INDEX bundle_raw ON bundle (run) WHERE kind = 'raw';

INSERT INTO bundle (id, run, kind, lfn, plan, size_bytes, adler32, digested_at)
SELECT id, run, 'raw', lfn, plan, size_bytes, adler32, digested_at FROM bundle_before;

DROP TABLE bundle_before;

ALTER TABLE replica ADD COLUMN backlog INTEGER NOT NULL DEFAULT 0;     -- 1: wanted for an old run; live ones go before

ALTER TABLE replica ADD COLUMN failed_copies INTEGER NOT NULL DEFAULT 0;  -- third-party copies since the last success

-- The endpoints that do not answer and are left alone; those that are well are not in it.
CREATE TABLE endpoint (
    name        TEXT PRIMARY KEY,
    since       TEXT NOT NULL,
    failures    INTEGER NOT NULL,    -- one after the other
    probe_at    TEXT NOT NULL,       -- when one piece of work is tried again
    problem     TEXT NOT NULL,
    hint        TEXT NOT NULL
) STRICT;
