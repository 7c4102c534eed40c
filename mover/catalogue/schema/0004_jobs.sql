-- Jobs that reconstruct runs, and campaigns of them. A job's output is a bundle that cannot be made again: it is one
-- ready-made file, which is kept until the bundle is safe.

ALTER TABLE bundle ADD COLUMN ready_made TEXT;   -- the output's file here, as long as it is kept; NULL: none

CREATE TABLE approved_release (
    name        TEXT PRIMARY KEY,
    at          TEXT NOT NULL,
    by          TEXT NOT NULL,
    withdrawn   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE campaign (
    id          INTEGER PRIMARY KEY,
    release     TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    state       TEXT NOT NULL,       -- mover.catalogue.campaigns.CampaignState
    most_jobs   INTEGER NOT NULL,    -- submitted at a time
    chosen      TEXT NOT NULL        -- what was asked for, in words
) STRICT;

CREATE TABLE job (
    id              INTEGER PRIMARY KEY,
    run             INTEGER NOT NULL REFERENCES run (number),
    kind            TEXT NOT NULL,       -- mover.model.BundleKind: reco or mc
    release         TEXT NOT NULL,
    iteration       INTEGER NOT NULL,
    campaign_id     INTEGER REFERENCES campaign (id),    -- NULL: wanted when its raw data came, and before all others
    state           TEXT NOT NULL,
    since           TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,          -- one after the other
    next_attempt_at TEXT NOT NULL,
    batch           TEXT,                -- the batch system that has the latest attempt
    name            TEXT,                -- the latest attempt's name there
    batch_id        TEXT,                -- the batch system's own id of it; NULL: its answer has not come
    status          TEXT,                -- what the batch system said last, in its words
    ended           INTEGER NOT NULL DEFAULT 0,          -- 1: it said that the attempt will never run again
    phase           TEXT,                -- mover.ports.JobPhase
    exit_code       INTEGER,
    revision        TEXT,                -- the CVMFS catalogue's, when it was submitted
    heartbeat       TEXT,                -- the last one, and since when it is so
    heartbeat_at    TEXT,
    missing_since   TEXT,                -- when the batch system began not to know it
    bundle_id       INTEGER UNIQUE REFERENCES bundle (id),
    report          TEXT,                -- JSON: what the latest attempt said of itself
    proof           TEXT,                -- JSON: what was found in the output as stored
    problem         TEXT,
    hint            TEXT,
    owner           TEXT,                -- the claim, as with replicas: NULL when nobody works on it
    fence           INTEGER NOT NULL DEFAULT 0,
    lease_until     TEXT NOT NULL DEFAULT '',
    UNIQUE (run, kind, release, iteration)
) STRICT;

CREATE INDEX job_due ON job (state, next_attempt_at);

CREATE INDEX job_name ON job (name);

CREATE INDEX job_campaign ON job (campaign_id, state);

-- What counts for the limits: submitted, or about to be.
CREATE VIEW job_under_way AS
SELECT * FROM job WHERE state = 'submitted' OR (state = 'wanted' AND owner NOTNULL);

-- Outputs of which nothing is left: not kept here, and stored nowhere.
CREATE VIEW output_nowhere AS
SELECT bundle.id FROM bundle JOIN job ON job.bundle_id = bundle.id WHERE bundle.ready_made IS NULL
AND NOT EXISTS (SELECT 1 FROM replica WHERE replica.bundle_id = bundle.id
    AND replica.state IN ('copied', 'verified', 'archived'));
