//! Settings, in two stages: as written (file, environment variables, flags) and checked.
//!
//! Later sources win: defaults, then the file, then environment variables, then flags.
//! No other module reads environment variables.

mod isolation;
pub mod limits;
mod locate;
mod operator;
mod policy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jail::Layer;
use serde::Deserialize;

pub use isolation::{GuestIsolation, HostIsolation, Isolation};
pub use locate::{Installation, LocateError};
pub use operator::Operator;
pub use policy::{Policy, PolicyName};

/// Flags that every command understands; each has an environment variable.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Where environments, builds and the audit log are kept
    #[arg(long, env = "CLOISTER_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// A settings file (TOML)
    #[arg(long, env = "CLOISTER_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// The settings file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    allow_remote: bool,
    jail: JailSection,
    egress: EgressSection,
    isolation: IsolationSection,
    execution: ExecutionSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JailSection {
    allow_missing: BTreeSet<Layer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EgressSection {
    /// Addresses and networks, such as `169.254.10.7` or `127.0.0.0/8`.
    allow: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IsolationSection {
    guest: Option<GuestIsolation>,
    host: Option<HostIsolation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExecutionSection {
    concurrent_max: Option<usize>,
    queued_max: Option<usize>,
    idle_processes_max: Option<usize>,
    idle_megabytes_max: Option<usize>,
    idle_seconds_max: Option<u64>,
    drain_seconds_max: Option<u64>,
    spare_guests: Option<usize>,
    spare_hosts: Option<usize>,
    keep_awake: Option<bool>,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Layers that the operator accepts to be without.
    pub allow_missing: BTreeSet<Layer>,
    /// Special addresses that the names of backends may lead to.
    pub egress_allow: Vec<IpNet>,
    /// The weakest isolation that an environment may ask for.
    pub isolation_min: Isolation,
    pub capacity: limits::Capacity,
    /// Whether idle processors are kept from sleeping while programs run.
    pub keep_awake: bool,
    pub operator: Operator,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the settings file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the settings file {path} is not valid: {source}")]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error(
        "{listen} is not a loopback address, and requests are not authenticated: put a proxy that authenticates \
         before it and set `allow_remote = true` in the settings file"
    )]
    Remote { listen: SocketAddr },
    #[error("{name} must be between {min} and {max}, but is {value}")]
    Range { name: &'static str, min: usize, max: usize, value: usize },
    #[error("egress.allow: {0} is neither an address nor a network (`10.0.0.0/8`)")]
    Network(String),
    #[error("no data directory: set --data-dir, CLOISTER_DATA_DIR, or HOME")]
    NoDataDirectory,
}

impl Settings {
    pub fn load(flags: &Flags, listen: Option<SocketAddr>) -> Result<Settings, SettingsError> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let operator = Operator::from_environment();
        let listen = listen.or(file.listen).unwrap_or(limits::LISTEN_DEFAULT);
        if !listen.ip().is_loopback() && !file.allow_remote {
            return Err(SettingsError::Remote { listen });
        }
        let data_dir = flags.data_dir.clone().or(file.data_dir).or_else(|| operator.default_data_dir());
        Ok(Settings {
            listen,
            data_dir: data_dir.ok_or(SettingsError::NoDataDirectory)?,
            allow_missing: file.jail.allow_missing,
            egress_allow: file.egress.allow.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            isolation_min: Isolation {
                guest: file.isolation.guest.unwrap_or(GuestIsolation::Environment),
                host: file.isolation.host.unwrap_or(HostIsolation::Environment),
            },
            capacity: capacity(&file.execution)?,
            keep_awake: file.execution.keep_awake.unwrap_or(true),
            operator,
        })
    }
}

fn network(text: &str) -> Result<IpNet, SettingsError> {
    let address = |text: &str| text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse().or_else(|_| address(text)).map_err(|_| SettingsError::Network(text.to_owned()))
}

fn capacity(section: &ExecutionSection) -> Result<limits::Capacity, SettingsError> {
    let default = limits::Capacity::default();
    let drain_seconds = section.drain_seconds_max.unwrap_or(default.drain_max.as_secs());
    let idle_seconds = section.idle_seconds_max.unwrap_or(default.idle_max.as_secs());
    let idle_megabytes = within(
        "execution.idle_megabytes_max",
        section.idle_megabytes_max,
        usize::try_from(default.idle_bytes_max / limits::MEGABYTE).unwrap_or(usize::MAX),
        0,
        1024 * 1024,
    )?;
    Ok(limits::Capacity {
        concurrent_max: within(
            "execution.concurrent_max",
            section.concurrent_max,
            default.concurrent_max,
            1,
            512,
        )?,
        queued_max: within("execution.queued_max", section.queued_max, default.queued_max, 0, 10_000)?,
        idle_processes_max: within(
            "execution.idle_processes_max",
            section.idle_processes_max,
            default.idle_processes_max,
            0,
            2000,
        )?,
        idle_bytes_max: limits::MEGABYTE * u64::try_from(idle_megabytes).unwrap_or(u64::MAX),
        spare_guests: within("execution.spare_guests", section.spare_guests, default.spare_guests, 0, 64)?,
        spare_hosts: within("execution.spare_hosts", section.spare_hosts, default.spare_hosts, 0, 16)?,
        starts_max: default.starts_max,
        idle_max: std::time::Duration::from_secs(idle_seconds),
        drain_max: std::time::Duration::from_secs(drain_seconds),
    })
}

fn within(
    name: &'static str,
    given: Option<usize>,
    default: usize,
    min: usize,
    max: usize,
) -> Result<usize, SettingsError> {
    let value = given.unwrap_or(default);
    if value < min || value > max {
        return Err(SettingsError::Range { name, min, max, value });
    }
    Ok(value)
}

fn read(path: &Path) -> Result<File, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| SettingsError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags { data_dir: Some("/data".into()), config: Some(file.path().to_owned()) };
        Settings::load(&flags, None)
    }

    #[test]
    fn a_file_may_set_everything_and_misspell_nothing() {
        let settings = load(
            "listen = '127.0.0.1:1'\n[jail]\nallow_missing = ['cgroup']\n[execution]\nconcurrent_max = 3\nkeep_awake = false\n\
             [egress]\nallow = ['127.0.0.1', '169.254.0.0/16']\n[isolation]\nguest = 'agent'\n",
        )
        .unwrap();
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.capacity.concurrent_max, 3);
        assert!(!settings.keep_awake);
        assert!(settings.allow_missing.contains(&Layer::Cgroup));
        assert_eq!(settings.egress_allow.len(), 2);
        assert_eq!(settings.isolation_min.guest, GuestIsolation::Agent);
        assert!(matches!(load("[egress]\nallow = ['a.example']"), Err(SettingsError::Network(_))));
        assert!(matches!(load("lisen = 'x'"), Err(SettingsError::Parse { .. })));
        assert!(matches!(load("[execution]\nconcurrent_max = 0"), Err(SettingsError::Range { .. })));
    }

    #[test]
    fn a_remote_address_needs_consent() {
        assert!(matches!(load("listen = '0.0.0.0:1'"), Err(SettingsError::Remote { .. })));
        assert!(load("listen = '0.0.0.0:1'\nallow_remote = true").is_ok());
    }
}
