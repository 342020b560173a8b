-- An environment as it was provisioned; `definition` holds what the contributor sent, as JSON.
CREATE TABLE environments (
    name TEXT PRIMARY KEY NOT NULL,
    definition TEXT NOT NULL,
    package_lock TEXT,
    module TEXT NOT NULL,
    endowments TEXT NOT NULL,
    build TEXT NOT NULL REFERENCES builds (digest),
    etag TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- A build folder, named by the digest of everything that went into it.
CREATE TABLE builds (
    digest TEXT PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- One row per execution; times are milliseconds since 1970, durations milliseconds.
CREATE TABLE executions (
    id TEXT PRIMARY KEY NOT NULL,
    agent TEXT NOT NULL,
    environment TEXT NOT NULL,
    build TEXT NOT NULL,
    policy TEXT NOT NULL,
    code TEXT NOT NULL,
    code_sha256 TEXT NOT NULL,
    input TEXT,
    metadata TEXT,
    status TEXT NOT NULL,
    error TEXT,
    result_bytes INTEGER NOT NULL,
    effects TEXT NOT NULL,
    missing_layers TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    cpu_ms REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL
) STRICT;

CREATE INDEX executions_by_environment ON executions (environment, started_at);
CREATE INDEX executions_by_agent ON executions (agent, started_at);
