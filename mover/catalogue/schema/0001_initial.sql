-- Times are ISO 8601 in UTC. States and events are the values of mover.states. What is wanted is stored, never what is
-- in progress: work in flight is a claim.

CREATE TABLE run (
    number      INTEGER PRIMARY KEY,
    state       TEXT NOT NULL,
    since       TEXT NOT NULL,
    closed_at   TEXT NOT NULL,
    marker_ns   TEXT,                -- mtime of the marker last seen, in ns (may be beyond 64 bits); NULL: none
    problem     TEXT,                -- what needs a person, and what to do
    hint        TEXT
) STRICT;

CREATE TABLE bundle (
    id          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL UNIQUE REFERENCES run (number),
    lfn         TEXT NOT NULL UNIQUE,
    plan        TEXT NOT NULL,       -- mover.bundle.plan.BundlePlan as JSON
    size_bytes  INTEGER NOT NULL,
    adler32     TEXT,                -- NULL until the bundle has been read once
    digested_at TEXT
) STRICT;

CREATE TABLE member (
    bundle_id   INTEGER NOT NULL REFERENCES bundle (id),
    position    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    digests     TEXT NOT NULL,       -- [[algorithm, hexadecimal], …]
    PRIMARY KEY (bundle_id, position)
) STRICT;

CREATE TABLE replica (
    id              INTEGER PRIMARY KEY,
    bundle_id       INTEGER NOT NULL REFERENCES bundle (id),
    endpoint        TEXT NOT NULL,
    state           TEXT NOT NULL,
    since           TEXT NOT NULL,
    intent_path     TEXT,            -- the name at the endpoint that we meant to write to
    uploads         INTEGER NOT NULL DEFAULT 0,
    rejections      INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    problem         TEXT,
    hint            TEXT,
    UNIQUE (bundle_id, endpoint)
) STRICT;

CREATE INDEX replica_due ON replica (endpoint, state, next_attempt_at);

CREATE TABLE claim (
    replica_id  INTEGER PRIMARY KEY REFERENCES replica (id),
    owner       TEXT,                -- NULL when nobody works on it
    fence       INTEGER NOT NULL,    -- one more for each claim: an engine that lost its claim cannot commit
    lease_until TEXT NOT NULL
) STRICT;

CREATE TABLE custody (
    seq         INTEGER PRIMARY KEY,
    at          TEXT NOT NULL,
    run         INTEGER NOT NULL,
    by          TEXT NOT NULL,       -- user@host
    event       TEXT NOT NULL,
    facts       TEXT NOT NULL,       -- JSON object
    hash        TEXT NOT NULL        -- sha256 over the record and the hash before it
) STRICT;

CREATE INDEX custody_run ON custody (run);

CREATE TRIGGER custody_is_not_changed BEFORE UPDATE ON custody
BEGIN SELECT RAISE(ABORT, 'custody records are never changed'); END;

CREATE TRIGGER custody_is_not_removed BEFORE DELETE ON custody
BEGIN SELECT RAISE(ABORT, 'custody records are never removed'); END;
