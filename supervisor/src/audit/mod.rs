//! The record of every execution, committed before the reply is sent.

use crate::store::{ExecutionRow, Store, StoreError, Write};

/// Writes records.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    /// The layers that the operator accepted to be without, for every record.
    missing_layers: String,
}

/// Proof that a record is on the disk. Only `Audit::commit` makes one.
pub struct Committed(());

impl Audit {
    pub fn new(store: Store, missing_layers: &[String]) -> Audit {
        Audit { store, missing_layers: missing_layers.join(" ") }
    }

    pub async fn commit(&self, mut row: ExecutionRow) -> Result<Committed, StoreError> {
        row.missing_layers.clone_from(&self.missing_layers);
        self.store.commit(Write::Execution(Box::new(row))).await?;
        Ok(Committed(()))
    }
}
