//! The record of every execution, committed before the reply is sent.

use crate::store::{ExecutionRow, Store, StoreError, Write};

/// Writes records.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    missing_layers: String,
}

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

    pub async fn commit(&self, row: ExecutionRow) -> Result<Committed, StoreError> {
        self.store.commit(Write::Execution(Box::new(row))).await?;
        Ok(Committed(()))
    }
}
