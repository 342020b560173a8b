//! What the operator's environment variables say: the default data directory, and how npm reaches
//! its registry.
#![expect(clippy::disallowed_methods, reason = "config is the one module that reads environment variables")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The parts of the operator's environment that Cloister honours. Nothing else of it reaches any
/// other process.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    home: Option<PathBuf>,
    data_home: Option<PathBuf>,
    is_root: bool,
    /// `npm_config_*`, in lower case as npm reads them, and the proxy variables.
    pub npm_variables: BTreeMap<String, String>,
    /// `NODE_EXTRA_CA_CERTS`.
    pub extra_ca_file: Option<PathBuf>,
    /// The npmrc files that exist: the user's, then the global one.
    pub user_npmrc: Option<PathBuf>,
    pub global_npmrc: Option<PathBuf>,
}

const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

impl Operator {
    pub fn from_environment() -> Operator {
        let home = variable("HOME").map(PathBuf::from);
        let npm_variables: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| {
                name.to_lowercase().starts_with("npm_config_") || PROXY_VARIABLES.contains(&name.as_str())
            })
            .collect();
        let named = |name: &str| {
            npm_variables
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| PathBuf::from(value))
        };
        let user_npmrc =
            named("npm_config_userconfig").or_else(|| home.as_ref().map(|home| home.join(".npmrc")));
        let global_npmrc = named("npm_config_globalconfig").or_else(global_npmrc);
        Operator {
            home,
            data_home: variable("XDG_DATA_HOME").map(PathBuf::from),
            is_root: nix::unistd::geteuid().is_root(),
            extra_ca_file: variable("NODE_EXTRA_CA_CERTS").map(PathBuf::from).filter(|path| path.is_file()),
            user_npmrc: user_npmrc.filter(|path| path.is_file()),
            global_npmrc: global_npmrc.filter(|path| path.is_file()),
            npm_variables,
        }
    }

    /// The proxies that the proxy variables name; npm uses them without telling.
    pub fn proxies(&self) -> impl Iterator<Item = &String> {
        let proxies = PROXY_VARIABLES.iter().filter(|name| !name.eq_ignore_ascii_case("NO_PROXY"));
        proxies.filter_map(|name| self.npm_variables.get(*name))
    }

    /// `/var/lib/cloister` as root, else the XDG data directory.
    pub fn default_data_dir(&self) -> Option<PathBuf> {
        if self.is_root {
            return Some(PathBuf::from("/var/lib/cloister"));
        }
        let base =
            self.data_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/share")));
        base.map(|base| base.join("cloister"))
    }
}

/// The global npmrc belongs to the npm on the PATH: `<prefix>/etc/npmrc`, where the prefix is two
/// levels above the `node` binary (`npm help folders`).
fn global_npmrc() -> Option<PathBuf> {
    let path = variable("PATH")?;
    let node = std::env::split_paths(&path)
        .map(|folder| folder.join("node"))
        .find(|candidate| candidate.is_file())?;
    let prefix = node.canonicalize().ok()?.parent().and_then(Path::parent)?.to_owned();
    Some(prefix.join("etc/npmrc"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
