-- What happened to campaigns, and what finds a job's turn among many thousands.

CREATE TABLE campaign_event (
    id          INTEGER PRIMARY KEY,
    campaign_id INTEGER NOT NULL REFERENCES campaign (id),
    at          TEXT NOT NULL,
    by          TEXT NOT NULL,       -- user@host
    event       TEXT NOT NULL,       -- 'created', then mover.states.CampaignEvent
    state       TEXT NOT NULL        -- the campaign's after it
) STRICT;

CREATE INDEX campaign_history ON campaign_event (campaign_id, id);

CREATE INDEX job_turn ON job (campaign_id, failures, run, kind DESC) WHERE state = 'wanted';

CREATE INDEX job_completed ON job (campaign_id, since) WHERE state = 'proven';

CREATE INDEX job_claimed ON job (owner) WHERE owner NOTNULL;

-- As before, but without a look at every job that is wanted.
DROP VIEW job_under_way;

CREATE VIEW job_under_way AS
SELECT * FROM job WHERE state = 'submitted'
UNION ALL SELECT * FROM job INDEXED BY job_claimed WHERE owner NOTNULL AND state = 'wanted';
