//! What a jailed process may do: the spec that the supervisor writes, the profiles that people
//! review, the seccomp programs made from them, and the steps by which a process confines itself.
//!
//! ```text
//!  profiles/jail/*.toml ──► Profile ──► Blueprint, once for a kind
//!                                           ├──► Spec ──(first frame)──► exec: confine, then become a program (jail-exec)
//!                                           └──► Confinement ──(first frame)──► fork: confine what was forked (a zygote's guest)
//! ```
//!
//! This library decides nothing about environments or executions, and starts no process.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the jail profiles are written and tested for Linux on x86_64 only");

mod blueprint;
mod confine;
mod exec;
mod fork;
mod profile;
mod root;
mod seccomp;
mod spec;
mod sys;

pub use blueprint::Blueprint;
pub use confine::Failure;
pub use exec::become_program;
pub use fork::GuestSeal;
pub use profile::{
    Action, CgroupLimits, Condition, Filter, Namespace, Profile, ProfileError, Right, Rlimits, Rule, Value,
};
pub use seccomp::{Facts, Programs, SeccompError};
pub use spec::{
    Access, Confinement, FromZygote, Grant, Identity, JIT_VARIABLE, Kind, Layer, Namespaces, PROTOCOL_FD,
    SPEC_BYTES_MAX, Spec, frame, read_frame,
};
