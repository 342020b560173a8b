-- An execution has its row from the moment at which its program may have effects: status `running`.
-- One that is still `running` when a supervisor starts was `interrupted`.
ALTER TABLE executions ADD COLUMN egress TEXT NOT NULL DEFAULT '[]';
ALTER TABLE executions ADD COLUMN isolation TEXT NOT NULL DEFAULT '{}';

CREATE INDEX executions_running ON executions (id) WHERE status = 'running';
