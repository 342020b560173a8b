-- An execution has its row from the moment at which its program may have effects: status `running`.
-- One that is still `running` when a supervisor starts was `interrupted`.
ALTER TABLE executions ADD COLUMN egress TEXT NOT NULL DEFAULT '[]';
ALTER TABLE executions ADD COLUMN isolation TEXT NOT NULL DEFAULT '{}';

CREATE INDEX executions_running ON executions (id) WHERE status = 'running';

-- What the host of an execution sent and received when it had ended: calls that the program did not wait
-- for, and what the environment does by itself. `at` is when that was noticed.
CREATE TABLE egress_after (
    execution TEXT NOT NULL,
    events TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE INDEX egress_after_by_execution ON egress_after (execution);
