//! What this host can enforce: measured, not assumed.
//!
//! In each jail a live process tries what must not be possible: an unlocked Node (in a guest: a sealed
//! one), and in an analyzer's jail the analyzer itself. One act per process, because a jail may end the
//! process that tries.

mod probe;

use std::collections::BTreeSet;

use jail::Layer;
use serde::{Deserialize, Serialize};

use crate::worker::{Launcher, LayerState};

/// The state of one layer on this host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    pub layer: String,
    pub required: bool,
    pub enforced: bool,
    /// What was measured, or why it is missing.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What came of one forbidden act in one jail.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    pub jail: String,
    pub act: String,
    pub target: String,
    pub outcome: ProbeOutcome,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    Refused,
    /// The act was possible, so the jail does not hold.
    Succeeded,
    /// The act could not be tried, which proves nothing.
    NotMade,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether untrusted code may be run here.
    pub safe: bool,
    pub layers: Vec<LayerReport>,
    pub probes: Vec<ProbeReport>,
}

/// The layers alone, which every start demands.
pub fn examine_layers(launcher: &Launcher, allow_missing: &BTreeSet<Layer>) -> Report {
    let layers =
        launcher.layers().states().map(|(layer, state)| layer_report(launcher, layer, state)).collect();
    let lacking = launcher.layers().missing_required();
    let safe = lacking.iter().all(|(layer, _)| allow_missing.contains(layer));
    Report { safe, layers, probes: Vec::new() }
}

/// The layers, and what live processes can do in each jail.
pub async fn examine(launcher: &Launcher, allow_missing: &BTreeSet<Layer>) -> Report {
    let mut report = examine_layers(launcher, allow_missing);
    report.probes = probe::all(launcher).await;
    report.safe &= report.probes.iter().all(|probe| probe.outcome == ProbeOutcome::Refused);
    report
}

impl Report {
    /// Why the supervisor does not serve, and what to do.
    pub fn refusal(&self) -> String {
        let layers = self.layers.iter().filter(|layer| layer.required && !layer.enforced).map(|layer| {
            format!(
                "\n  layer {} is missing: {}\n    {}",
                layer.layer,
                layer.detail,
                layer.remedy.as_deref().unwrap_or_default()
            )
        });
        let probes = self.probes.iter().filter_map(|probe| {
            let ProbeReport { jail, act, target, outcome, detail } = probe;
            match outcome {
                ProbeOutcome::Refused => None,
                ProbeOutcome::Succeeded => Some(format!(
                    "\n  the jail of the {jail} does not hold: it could {act} {target}: {detail}"
                )),
                ProbeOutcome::NotMade => {
                    Some(format!("\n  it is not known whether the {jail} could {act} {target}: {detail}"))
                }
            }
        });
        let reasons: String = layers.chain(probes).collect();
        format!(
            "untrusted code may not be run on this host:{reasons}\n\
             `supervisor doctor` shows everything; the setting jail.allow_missing = [\"<layer>\"] accepts a missing layer."
        )
    }
}

fn layer_report(launcher: &Launcher, layer: Layer, state: &LayerState) -> LayerReport {
    let (enforced, detail) = match state {
        LayerState::Enforced => (true, measured(launcher, layer)),
        LayerState::Missing(reason) => (false, reason.clone()),
    };
    LayerReport {
        layer: layer.to_string(),
        required: launcher.layers().is_required(layer),
        enforced,
        detail,
        remedy: (!enforced).then(|| remedy(layer).to_owned()),
    }
}

fn measured(launcher: &Launcher, layer: Layer) -> String {
    match layer {
        Layer::Landlock => "a process restricted itself".to_owned(),
        Layer::Cgroup => format!("version {}, memory and pids", launcher.cgroup_version().unwrap_or(0)),
        Layer::UserId => "a process changed to a user id of its own".to_owned(),
        Layer::Namespaces => "network, IPC, UTS and mount namespaces were unshared".to_owned(),
        Layer::PrivateRoot => "a process moved into an empty root".to_owned(),
    }
}

fn remedy(layer: Layer) -> &'static str {
    match layer {
        Layer::Landlock => "use a kernel of at least 5.13 with `landlock` in its `lsm=` list",
        Layer::Cgroup => {
            "run as root, or as a systemd service with Delegate=memory pids cpu; in a container, mount /sys/fs/cgroup writable"
        }
        Layer::UserId => {
            "run as root with CAP_SETUID and CAP_SETGID, and keep every folder above the installation passable (mode 711)"
        }
        Layer::Namespaces | Layer::PrivateRoot => {
            "run as root with CAP_SYS_ADMIN, or allow unprivileged user namespaces (kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        }
    }
}
