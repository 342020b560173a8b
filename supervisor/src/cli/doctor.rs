//! `supervisor doctor`.

use std::process::ExitCode;

use super::output::{Failure, Format, print, print_json, print_table};
use crate::config::{Installation, Settings};
use crate::doctor::{self, ProbeOutcome, Report};
use crate::runtime::Tasks;
use crate::worker::Launcher;

/// Works in a folder of its own, so that it can be run beside a supervisor.
pub async fn run(settings: Settings, format: Format) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("cloister-doctor-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let installation = Installation::find().map_err(Failure::configuration)?;
    let tasks = Tasks::default();
    let launcher = Launcher::new(tasks.clone(), installation, folder.path(), &settings.egress_allow)
        .await
        .map_err(Failure::configuration)?;
    let report = doctor::examine(&launcher, &settings.allow_missing).await;
    tasks.ended().await;
    launcher.clean_up();
    match format {
        Format::Json => print_json(&report)?,
        Format::Text => show(&report),
    }
    Ok(if report.safe { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report) {
    let layers = report.layers.iter().map(|layer| {
        let state = match (layer.enforced, layer.required) {
            (true, _) => "enforced",
            (false, true) => "MISSING",
            (false, false) => "missing",
        };
        vec![layer.layer.clone(), state.to_owned(), layer.detail.clone()]
    });
    print_table(&["LAYER", "STATE", "DETAIL"], layers.collect());
    print("");
    let probes = report.probes.iter().map(|probe| {
        let state = match probe.outcome {
            ProbeOutcome::Refused => "refused",
            ProbeOutcome::Succeeded => "SUCCEEDED",
            ProbeOutcome::NotMade => "NOT TRIED",
        };
        vec![
            probe.jail.clone(),
            format!("{} {}", probe.act, probe.target),
            state.to_owned(),
            probe.detail.clone(),
        ]
    });
    print_table(&["JAIL", "ACT", "RESULT", "DETAIL"], probes.collect());
    print("");
    for layer in report.layers.iter().filter(|layer| !layer.enforced) {
        print(&format!("{}: {}", layer.layer, layer.remedy.as_deref().unwrap_or_default()));
    }
    print(if report.safe {
        "Untrusted code may be run on this host."
    } else {
        "Untrusted code must NOT be run on this host."
    });
}
