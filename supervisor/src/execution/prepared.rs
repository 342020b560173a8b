//! What an execution has before its program starts, which may be while the program is analyzed.

use std::sync::Arc;
use std::task::Poll;

use analyzer::{Likely, Submission};

use super::request::ExecutionRequest;
use super::{ExecutionRefusal, Executor, record, told};
use crate::audit::{Beginning, StartRow, Withdrawal};
use crate::clock::now_ms;
use crate::config::limits;
use crate::ids::ExecutionId;

/// What an execution has before its program starts. If it was announced and does not come to be, its record is
/// withdrawn.
pub struct Prepared {
    pub id: ExecutionId,
    pub start: StartRow,
    pub record: Beginning,
    pub announced: Option<(Likely, Withdrawal)>,
}

impl Executor {
    /// Lets the agent's guest get ready what will most likely be, while the analyzer reads it. The record begins first:
    /// what writes it would wait behind a guest that compiles, and is done sooner.
    pub(super) fn announce(&self, request: &ExecutionRequest, likely: Likely) -> Option<Prepared> {
        let mut begun = None;
        let begin = || {
            let id = ExecutionId::new();
            let start = record::beginning(&self.audit, &id, request, now_ms());
            let (record, withdrawal) = self.audit.begin_provisionally(Arc::clone(&start))?;
            let execution = told::likely(&id, request, &likely);
            begun = Some((id, start, record, withdrawal));
            Some(execution)
        };
        let is_told = self.pool.announce(request.environment(), request.agent(), begin);
        let (id, start, record, withdrawal) = begun.filter(|_| is_told)?;
        Some(Prepared { id, start, record, announced: Some((likely, withdrawal)) })
    }

    pub(super) async fn prepare(
        &self,
        request: &ExecutionRequest,
        started_at: i64,
    ) -> Result<Prepared, ExecutionRefusal> {
        let id = ExecutionId::new();
        let start = record::beginning(&self.audit, &id, request, started_at);
        let record = self.audit.begin(Arc::clone(&start)).await.map_err(ExecutionRefusal::Audit)?;
        Ok(Prepared { id, start, record, announced: None })
    }
}

/// What the program will most likely be, if that is short enough to be announced.
pub fn likely(request: &ExecutionRequest, submission: &Submission) -> Option<Likely> {
    if submission.source.len() > limits::ANNOUNCED_BYTES_MAX {
        return None;
    }
    let likely = analyzer::likely(submission)?;
    let given = request.given_bytes() + likely.functions.iter().map(String::len).sum::<usize>();
    (given <= limits::ANNOUNCED_GIVEN_BYTES_MAX).then_some(likely)
}

/// Waits for something. Who has to wait withdraws what was announced: nobody knows how long it would stand there, and a
/// guest that was found quiet and knows the id would have the time to speak before its turn.
pub async fn at_once<W: Future>(announced: &mut Option<Prepared>, wanted: W) -> W::Output {
    let mut wanted = std::pin::pin!(wanted);
    match futures_util::poll!(&mut wanted) {
        Poll::Ready(output) => output,
        Poll::Pending => {
            *announced = None;
            wanted.await
        }
    }
}
