//! The rows of the database. JSON columns are texts here; their owners know what is in them.

use rusqlite::{Connection, Row, Transaction, params};
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecutionStartRow {
    pub id: String,
    pub agent: String,
    pub environment: String,
    pub build: String,
    pub policy: String,
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

/// Records the executions that a supervisor left behind which did not end in order, and tells how many there were.
pub fn save_interrupted(connection: &mut Connection, begun: &[ExecutionStartRow]) -> rusqlite::Result<usize> {
    let transaction = connection.transaction()?;
    let end = interrupted_end();
    let saved: rusqlite::Result<Vec<usize>> =
        begun.iter().map(|start| save_execution(&transaction, start, &end)).collect();
    let interrupted = saved?.into_iter().sum();
    transaction.commit()?;
    Ok(interrupted)
}

/// Which calls it made is not known any more.
fn interrupted_end() -> ExecutionEndRow {
    ExecutionEndRow {
        status: "interrupted",
        error: None,
        result_bytes: 0,
        effects: "null".to_owned(),
        egress: "null".to_owned(),
        duration_ms: 0.0,
        cpu_ms: 0.0,
        peak_memory_bytes: 0,
    }
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
        Write::Execution(start, end) => match save_execution(transaction, start, end)? {
            1 => Ok(()),
            changed => Err(rusqlite::Error::StatementChangedRows(changed)),
        },
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

/// How many rows that made: none, if the execution stands there already.
fn save_execution(
    transaction: &Transaction<'_>,
    start: &ExecutionStartRow,
    end: &ExecutionEndRow,
) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO executions (id, agent, environment, build, policy, isolation, code, code_sha256, input, metadata,
             missing_layers, started_at, status, error, result_bytes, effects, egress, duration_ms, cpu_ms, peak_memory_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
         ON CONFLICT (id) DO NOTHING";
    transaction.prepare_cached(sql)?.execute(params![
        start.id,
        start.agent,
        start.environment,
        start.build,
        start.policy,
        start.isolation,
        start.code,
        start.code_sha256,
        start.input,
        start.metadata,
        start.missing_layers,
        start.started_at,
        end.status,
        end.error,
        end.result_bytes.cast_signed(),
        end.effects,
        end.egress,
        end.duration_ms,
        end.cpu_ms,
        end.peak_memory_bytes.cast_signed()
    ])
}

fn execute(transaction: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}
