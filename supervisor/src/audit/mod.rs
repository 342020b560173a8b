//! The record of every execution: begun before its program can have an effect, complete before the
//! reply is sent.

use std::sync::Arc;

use crate::clock::now_ms;
use crate::egress::EgressEvent;
use crate::ids::ExecutionId;
pub use crate::store::Withdrawal;
use crate::store::{EgressAfterRow, ExecutionEndRow, ExecutionStartRow, Pending, Store, StoreError, Write};

/// Writes records.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    missing_layers: String,
}

/// What is known of an execution before its program runs, as it is recorded.
pub type StartRow = Arc<ExecutionStartRow>;

/// A record that is about to be begun; until it is, no call is forwarded.
pub struct Beginning(Pending);

/// Proof that a record is on the disk. Only `Audit::commit` makes one.
pub struct Committed(());

impl Audit {
    pub fn new(store: Store, missing_layers: &[String]) -> Audit {
        Audit { store, missing_layers: missing_layers.join(" ") }
    }

    /// The layers that the operator accepted to be without, which every record names.
    pub fn missing_layers(&self) -> &str {
        &self.missing_layers
    }

    /// Queues the beginning of a record; the program may be started meanwhile.
    pub async fn begin(&self, start: StartRow) -> Result<Beginning, StoreError> {
        self.store.begin(start).await.map(Beginning)
    }

    /// The same for an execution that may not be. Nothing, when there is no room for that.
    pub fn begin_provisionally(&self, start: StartRow) -> Option<(Beginning, Withdrawal)> {
        let (pending, withdrawal) = self.store.begin_provisionally(start)?;
        Some((Beginning(pending), withdrawal))
    }

    /// Completes a record.
    pub async fn commit(&self, start: StartRow, end: ExecutionEndRow) -> Result<Committed, StoreError> {
        self.store.commit(Write::Execution(start, Box::new(end))).await?;
        Ok(Committed(()))
    }

    /// Whether what writes records is to be kept off the processor of this thread.
    pub fn keep_apart(&self, wanted: bool) {
        self.store.keep_apart(wanted);
    }

    /// Brings what has begun to the disk. Called regularly.
    pub fn sync(&self) {
        self.store.sync();
    }
}

impl Audit {
    /// Records what the host of an execution did when that had ended. Nobody waits for it, so a failure
    /// is the log's.
    pub async fn egress_after(&self, execution: ExecutionId, events: Vec<EgressEvent>) {
        let row = EgressAfterRow {
            execution: execution.to_string(),
            events: serde_json::to_string(&events).unwrap_or_default(),
            at: now_ms(),
        };
        if let Err(error) = self.store.commit(Write::EgressAfter(Box::new(row))).await {
            tracing::error!(%execution, ?events, %error, "connections after an execution could not be recorded");
        }
    }
}

impl Beginning {
    /// Returns when the record would survive the end of this process.
    pub async fn written(self) -> Result<(), StoreError> {
        self.0.done().await
    }
}
