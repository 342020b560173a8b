-- An execution has its row when it has ended; until then a file beside the database tells of it.
UPDATE executions SET status = 'interrupted', effects = 'null', egress = 'null' WHERE status = 'running';

DROP INDEX executions_running;
