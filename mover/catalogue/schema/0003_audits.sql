-- What audits found. What is to be asked is written down before the first question, so that an audit that was cut short
-- goes on where it was. Nothing here changes a state: what follows from a finding is a person's to decide.

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY,
    begun_at    TEXT NOT NULL,
    ended_at    TEXT,                -- NULL: cut short; `mover audit --resume` goes on with it
    deep        INTEGER NOT NULL,    -- 1: every bundle was read back
    whole       INTEGER NOT NULL,    -- 1: every endpoint was asked, so that the policy can be assessed
    chosen      TEXT NOT NULL        -- what was asked for, in words
) STRICT;

CREATE TABLE audit_bundle (
    audit_id    INTEGER NOT NULL REFERENCES audit (id),
    bundle_id   INTEGER NOT NULL REFERENCES bundle (id),
    at          TEXT,                -- NULL: to be done
    outcome     TEXT,                -- mover.catalogue.audits.Outcome
    policy      TEXT,                -- how the policy was satisfied; NULL if it was not assessed
    PRIMARY KEY (audit_id, bundle_id)
) STRICT;

CREATE INDEX audit_bundle_outcome ON audit_bundle (bundle_id, outcome, at);

CREATE TABLE audit_result (
    audit_id    INTEGER NOT NULL,
    bundle_id   INTEGER NOT NULL,
    endpoint    TEXT NOT NULL,
    at          TEXT,                -- NULL: to be asked
    outcome     TEXT,
    read_bytes  INTEGER NOT NULL DEFAULT 0,
    findings    TEXT NOT NULL DEFAULT '[]',  -- [[outcome, found, remedy], …]
    PRIMARY KEY (audit_id, bundle_id, endpoint),
    FOREIGN KEY (audit_id, bundle_id) REFERENCES audit_bundle (audit_id, bundle_id)
) STRICT;

CREATE INDEX audit_result_pending ON audit_result (audit_id, endpoint, bundle_id) WHERE outcome IS NULL;
