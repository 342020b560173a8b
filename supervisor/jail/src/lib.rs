//! What a jailed process may do: the spec that the supervisor writes, the profiles that people
//! review, and the seccomp programs made from them.
//!
//! ```text
//!  profiles/jail/*.toml ──► Profile ──► Programs ─┐
//!                                                 ├─► jail-exec: confine, then exec
//!  supervisor ──(first frame on stdin)──► Spec ───┘
//! ```
//!
//! This library decides nothing about environments or executions, and starts no process.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the jail profiles are written and tested for Linux on x86_64 only");

mod profile;
mod seccomp;
mod spec;

pub use profile::{
    Action, CgroupLimits, Condition, Filter, Namespace, Profile, ProfileError, Right, Rlimits, Rule, Value,
};
pub use seccomp::{Facts, Programs, SeccompError};
pub use spec::{
    Access, Grant, Identity, JIT_VARIABLE, Kind, Layer, Namespaces, PROTOCOL_FD, SPEC_BYTES_MAX, Spec,
};
