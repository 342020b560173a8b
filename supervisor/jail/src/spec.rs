//! The one message that a process reads while it is confined: everything about what it is to become.
//!
//! It is written by the supervisor and is trusted; it still bounds its own size.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Blueprint;

/// The descriptor on which a jailed process finds its protocol socket.
pub const PROTOCOL_FD: i32 = 3;

/// The environment variable that tells a zygote that V8 compiles nothing in its guests: `off`.
pub const JIT_VARIABLE: &str = "CLOISTER_JIT";

/// The largest spec that is read, in bytes.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;

/// Reads one frame as in the protocol: four bytes of big-endian length, then JSON.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes, {SPEC_BYTES_MAX} are the most")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// A value as such a frame.
pub fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    if body.len() > SPEC_BYTES_MAX {
        return Err(io::Error::other("the spec is too large: the environment has too many backends"));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

/// What a zygote says: that it can fork, and what came of each request to do so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromZygote {
    Ready {},
    Forked { pid: i32 },
    Failed { reason: String },
}

/// Which profile of `profiles/jail/` holds the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From which guests are forked.
    Zygote,
    Guest,
    Host,
    Installer,
    Analyzer,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Zygote, Kind::Guest, Kind::Host, Kind::Installer, Kind::Analyzer];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Zygote => "zygote",
            Kind::Guest => "guest",
            Kind::Host => "host",
            Kind::Installer => "installer",
            Kind::Analyzer => "analyzer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A layer of the jail that a host may lack. What every Linux host has (no_new_privs, rlimits,
/// seccomp) is no choice and therefore not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Files by Landlock.
    Landlock,
    /// Memory, processes and CPU by a control group.
    Cgroup,
    /// A user id that no other process has.
    UserId,
    /// Network, IPC and UTS namespaces of its own.
    Namespaces,
    /// An own, nearly empty root directory.
    PrivateRoot,
}

impl Layer {
    pub const ALL: [Layer; 5] =
        [Layer::Landlock, Layer::Cgroup, Layer::UserId, Layer::Namespaces, Layer::PrivateRoot];

    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Landlock => "landlock",
            Layer::Cgroup => "cgroup",
            Layer::UserId => "user_id",
            Layer::Namespaces => "namespaces",
            Layer::PrivateRoot => "private_root",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What the process may do with a granted path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Read,
    Execute,
    Write,
    /// A folder of socket files, to connect to.
    Connect,
}

/// One path of the host that exists in the jail. The list of grants is at once the content of the
/// private root and the list of Landlock rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub source: PathBuf,
    pub target: PathBuf,
    pub access: Access,
}

impl Grant {
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Grant {
        Grant { source: source.into(), target: target.into(), access }
    }

    /// Where the jailed process finds it: without a private root a path keeps its place.
    pub fn inside(&self, private_root: bool) -> &Path {
        if private_root { &self.target } else { &self.source }
    }
}

/// A user id (and group id of the same number) that belongs to this process alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
}

/// Which namespaces are unshared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespaces {
    #[default]
    None,
    /// Directly, with the privilege of root.
    Privileged,
    /// Through a user namespace of its own.
    User,
}

/// What every process is told of its jail, whether it is made by jail-exec or forked from a zygote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    pub kind: Kind,
    /// The process that must still be the parent when the death signal is set.
    pub supervisor_pid: i32,
    pub identity: Option<Identity>,
    pub namespaces: Namespaces,
    pub landlock: bool,
}

/// Everything that jail-exec has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub confinement: Confinement,
    pub blueprint: Blueprint,
    /// The program, as a path inside the jail.
    pub program: PathBuf,
    /// The arguments, without the program itself.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// `cgroup.procs` files that the process enters.
    pub cgroups: Vec<PathBuf>,
    /// Whether it takes no processor from another process when it wakes.
    pub batch: bool,
    /// An empty directory on which the private root is mounted, if there is to be one.
    pub root: Option<PathBuf>,
    /// Writable memory (`RLIMIT_DATA`), where no control group bounds it.
    pub data_bytes_max: Option<u64>,
    pub grants: Vec<Grant>,
    /// The directory in which the program starts, inside the jail.
    pub directory: PathBuf,
}
