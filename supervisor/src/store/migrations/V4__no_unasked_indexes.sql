-- An index is one more page for every record to write, and comes with the question that needs it.
DROP INDEX executions_by_environment;
DROP INDEX executions_by_agent;
DROP INDEX egress_after_by_execution;
