//! The rows of the database. JSON columns are texts here; their owners know what is in them.

use rusqlite::{Connection, Row, Transaction, params};

use super::{Contents, Write};

#[derive(Clone, Debug)]
pub struct EnvironmentRow {
    pub name: String,
    pub definition: String,
    pub package_lock: Option<String>,
    pub module: String,
    pub endowments: String,
    pub build: String,
    pub etag: String,
    /// Milliseconds since 1970, as in every row.
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Clone, Debug)]
pub struct BuildRow {
    pub digest: String,
    pub created_at: i64,
}

/// What is known of an execution before its program runs.
#[derive(Clone, Debug)]
pub struct ExecutionStartRow {
    pub id: String,
    pub agent: String,
    pub environment: String,
    pub build: String,
    pub policy: &'static str,
    pub isolation: String,
    pub code: String,
    pub code_sha256: String,
    pub input: Option<String>,
    pub metadata: Option<String>,
    pub missing_layers: String,
    pub started_at: i64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ExecutionEndRow {
    pub id: String,
    pub status: &'static str,
    pub error: Option<String>,
    pub result_bytes: u64,
    pub effects: String,
    pub egress: String,
    pub duration_ms: f64,
    pub cpu_ms: f64,
    pub peak_memory_bytes: u64,
}

/// What a host sent and received after an execution, as JSON.
#[derive(Clone, Debug)]
pub struct EgressAfterRow {
    pub execution: String,
    pub events: String,
    pub at: i64,
}

/// Settles the executions that a supervisor left behind which did not end in order.
pub fn settle_interrupted(connection: &Connection) -> rusqlite::Result<usize> {
    // Which calls they made is not known any more.
    let unknown = "UPDATE executions SET status = 'interrupted', effects = 'null', egress = 'null' WHERE status = 'running'";
    connection.execute(unknown, [])
}

pub fn read_all(connection: &Connection) -> rusqlite::Result<Contents> {
    let mut statement = connection.prepare(
        "SELECT name, definition, package_lock, module, endowments, build, etag, created_at, updated_at FROM environments",
    )?;
    let environments = statement.query_map([], environment)?.collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare("SELECT digest FROM builds")?;
    let builds = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Contents { environments, builds })
}

fn environment(row: &Row<'_>) -> rusqlite::Result<EnvironmentRow> {
    Ok(EnvironmentRow {
        name: row.get(0)?,
        definition: row.get(1)?,
        package_lock: row.get(2)?,
        module: row.get(3)?,
        endowments: row.get(4)?,
        build: row.get(5)?,
        etag: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

pub fn apply(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Environment(rows) => {
            let (environment, build) = rows.as_ref();
            save_build(transaction, build)?;
            save_environment(transaction, environment)
        }
        Write::RemoveEnvironment(name) => {
            execute(transaction, "DELETE FROM environments WHERE name = ?1", params![name])
        }
        Write::RemoveBuild(digest) => {
            execute(transaction, "DELETE FROM builds WHERE digest = ?1", params![digest])
        }
        Write::ExecutionStart(row) => start_execution(transaction, row),
        Write::ExecutionEnd(row) => end_execution(transaction, row),
        Write::EgressAfter(row) => execute(
            transaction,
            "INSERT INTO egress_after (execution, events, at) VALUES (?1, ?2, ?3)",
            params![row.execution, row.events, row.at],
        ),
    }
}

fn save_build(transaction: &Transaction<'_>, row: &BuildRow) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT INTO builds (digest, created_at) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING",
        params![row.digest, row.created_at],
    )
}

fn save_environment(transaction: &Transaction<'_>, row: &EnvironmentRow) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT INTO environments (name, definition, package_lock, module, endowments, build, etag, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (name) DO UPDATE SET definition = ?2, package_lock = ?3, module = ?4, endowments = ?5, build = ?6,
             etag = ?7, updated_at = ?9",
        params![
            row.name, row.definition, row.package_lock, row.module, row.endowments, row.build, row.etag, row.created_at,
            row.updated_at
        ],
    )
}

fn start_execution(transaction: &Transaction<'_>, row: &ExecutionStartRow) -> rusqlite::Result<()> {
    execute(
        transaction,
        "INSERT INTO executions (id, agent, environment, build, policy, isolation, code, code_sha256, input, metadata,
             missing_layers, started_at, status, result_bytes, effects, duration_ms, cpu_ms, peak_memory_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'running', 0, '[]', 0, 0, 0)",
        params![
            row.id, row.agent, row.environment, row.build, row.policy, row.isolation, row.code, row.code_sha256, row.input,
            row.metadata, row.missing_layers, row.started_at
        ],
    )
}

fn end_execution(transaction: &Transaction<'_>, row: &ExecutionEndRow) -> rusqlite::Result<()> {
    let changed = transaction
        .prepare_cached(
            "UPDATE executions SET status = ?2, error = ?3, result_bytes = ?4, effects = ?5, egress = ?6, duration_ms = ?7,
                 cpu_ms = ?8, peak_memory_bytes = ?9
             WHERE id = ?1 AND status = 'running'",
        )?
        .execute(params![
            row.id, row.status, row.error, row.result_bytes.cast_signed(), row.effects, row.egress, row.duration_ms,
            row.cpu_ms, row.peak_memory_bytes.cast_signed()
        ])?;
    // An end without its start would be a record that nobody can find.
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

fn execute(transaction: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}
