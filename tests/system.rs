//! The whole system, black box: the real supervisor, real jails, real Node, a real backend.
//!
//! Every test starts its own supervisor on its own data directory and takes it down again. Every
//! security claim is a pair: the act succeeds outside and fails inside. The tests run as root,
//! because the jails are strongest then; `scripts/test` says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start the supervisor and their control processes, and connect to it"
)]

mod api;
mod cli;
mod egress;
mod escape;
mod language;
mod lifecycle;
mod limits;
mod packages;
mod support;
