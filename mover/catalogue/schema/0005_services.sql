-- Which daemons work on this catalogue, with what configuration: one that goes by an old policy must be told from one
-- that knows the new one. A row stays until a daemon of its machine starts and finds its process gone.

CREATE TABLE service (
    owner       TEXT NOT NULL,       -- the process, as in claims
    name        TEXT NOT NULL,       -- for people: engine, reco agent
    started_at  TEXT NOT NULL,
    config      TEXT NOT NULL,       -- sha256 of the configuration that it goes by
    PRIMARY KEY (owner, name)
) STRICT;
