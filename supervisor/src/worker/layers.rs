//! Which layers of the jail this machine can enforce, found out by starting a process with each.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use jail::{Kind, Layer};

use super::launch::{Launch, Program};
use super::launcher::Launcher;
use super::process::ExitCause;
use crate::config::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    Enforced,
    /// Why not.
    Missing(String),
}

/// The state of every layer.
#[derive(Clone, Debug)]
pub struct Layers {
    states: BTreeMap<Layer, LayerState>,
}

#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error("cannot prepare {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("a jailed process cannot be started at all: it {0}")]
    Unusable(String),
}

impl Layers {
    pub(super) fn none() -> Layers {
        Layers::with(&[])
    }

    fn with(enforced: &[Layer]) -> Layers {
        let state = |layer| {
            if enforced.contains(&layer) {
                LayerState::Enforced
            } else {
                LayerState::Missing("not tried".to_owned())
            }
        };
        Layers { states: Layer::ALL.into_iter().map(|layer| (layer, state(layer))).collect() }
    }

    pub fn has(&self, layer: Layer) -> bool {
        self.states.get(&layer) == Some(&LayerState::Enforced)
    }

    pub fn states(&self) -> impl Iterator<Item = (Layer, &LayerState)> {
        self.states.iter().map(|(layer, state)| (*layer, state))
    }

    /// Root alone can give processes user ids of their own; for others, namespaces and seccomp keep
    /// them apart.
    pub fn is_required(&self, layer: Layer) -> bool {
        layer != Layer::UserId || nix::unistd::geteuid().is_root()
    }

    /// The required layers that are missing here.
    pub fn missing_required(&self) -> Vec<(Layer, &str)> {
        self.states()
            .filter_map(|(layer, state)| match state {
                LayerState::Missing(reason) if self.is_required(layer) => Some((layer, reason.as_str())),
                _ => None,
            })
            .collect()
    }

    /// Starts a process with each layer alone; the private root needs a mount namespace.
    pub(super) async fn detect(bare: &Launcher) -> Result<Layers, LayersError> {
        attempt(bare, &[]).await.map_err(LayersError::Unusable)?;
        let own_root = [Layer::Namespaces, Layer::PrivateRoot];
        let (landlock, root, cgroup) = tokio::join!(
            attempt(bare, &[Layer::Landlock]),
            attempt(bare, &own_root),
            attempt(bare, &[Layer::Cgroup]),
        );
        // In a root of its own, another user need not pass the folders above the installation.
        let beside: &[Layer] = if root.is_ok() { &own_root } else { &[] };
        let user_id = attempt(bare, &[beside, &[Layer::UserId]].concat()).await;
        let user_id = if nix::unistd::geteuid().is_root() {
            user_id
        } else {
            Err("the supervisor is not root".to_owned())
        };
        let cgroup = bare.cgroup_version().and(cgroup);
        let results = [
            (Layer::Landlock, landlock),
            (Layer::UserId, user_id),
            (Layer::Namespaces, root.clone()),
            (Layer::PrivateRoot, root),
            (Layer::Cgroup, cgroup),
        ];
        let states = results.into_iter().map(|(layer, result)| {
            (layer, result.map_or_else(LayerState::Missing, |()| LayerState::Enforced))
        });
        Ok(Layers { states: states.collect() })
    }
}

async fn attempt(bare: &Launcher, layers: &[Layer]) -> Result<(), String> {
    let launcher = bare.with_layers(Layers::with(layers));
    let launch = Launch {
        kind: Kind::Host,
        program: Program::Node,
        arguments: vec!["--version".to_owned()],
        environment: BTreeMap::new(),
        grants: Vec::new(),
        directory: PathBuf::from("/"),
        program_memory_bytes: 0,
        jit: true,
        stdout_bytes_max: limits::STDOUT_BYTES_MAX,
        folder: None,
    };
    let (process, _socket) = launcher.launch(launch).await.map_err(|error| error.to_string())?;
    let ended = tokio::time::timeout(limits::BOOT_TIME_MAX, process.ended()).await;
    let exit = ended.map_err(|_| "did not end in time".to_owned())?;
    if exit.cause == ExitCause::Code(0) { Ok(()) } else { Err(exit.diagnosis()) }
}
