//! `supervisor serve`.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use interprocess::local_socket::tokio::Listener;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::output::{Failure, print};
use crate::config::Settings;
use crate::daemon::{Daemon, DataDirectory};
use crate::http;

#[derive(clap::Args)]
pub struct Arguments {
    /// The address to listen on [default: 127.0.0.1:3000]
    #[arg(long, env = "CLOISTER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

/// Where commands find the supervisor of a data directory.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

pub async fn run(settings: Settings) -> Result<ExitCode, Failure> {
    log_to_stderr();
    let data = DataDirectory::open(&settings.data_dir).map_err(Failure::configuration)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listen = settings.listen;
    let daemon = Daemon::start(settings, &data).await.map_err(Failure::configuration)?;
    let admin_path = admin_socket(&data.path);
    let started = listen_and_serve(&daemon, listen, &admin_path).await;
    if let Ok(address) = &started {
        print(&format!("cloister listens on http://{address}"));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
    }
    daemon.shut_down().await;
    // The listener removes it as well; whoever comes second finds nothing.
    let _ = std::fs::remove_file(&admin_path);
    started.map(|_| ExitCode::SUCCESS)
}

async fn listen_and_serve(
    daemon: &Arc<Daemon>,
    listen: SocketAddr,
    admin_path: &Path,
) -> Result<SocketAddr, Failure> {
    let report = daemon.make_ready().await.map_err(Failure::configuration)?;
    for layer in report.layers.iter().filter(|layer| !layer.enforced) {
        tracing::warn!(layer = layer.layer, reason = layer.detail, "a layer is missing");
    }
    let failed = |error: io::Error| Failure::configuration(format!("cannot listen on {listen}: {error}"));
    let tcp = TcpListener::bind(listen).await.map_err(failed)?;
    let address = tcp.local_addr()?;
    let admin = listen_locally(admin_path)
        .map_err(|error| Failure::configuration(format!("{}: {error}", admin_path.display())))?;
    let router = http::router(Arc::clone(daemon));
    let (tasks, tcp_router) = (daemon.tasks.clone(), http::guard_loopback(router.clone(), address));
    daemon.tasks.spawn_service(async move {
        http::serve(tasks, tcp_router, || async {
            let (stream, _) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .await;
    });
    let tasks = daemon.tasks.clone();
    daemon.tasks.spawn_service(async move { http::serve(tasks, router, || admin.accept()).await });
    Ok(address)
}

/// The socket of a supervisor that was killed is in the way; the lock says that none runs.
fn listen_locally(path: &Path) -> io::Result<Listener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    ListenerOptions::new().name(path.to_owned().to_fs_name::<GenericFilePath>()?).mode(0o600).create_tokio()
}

/// `CLOISTER_LOG` sets what is logged, as `RUST_LOG` does elsewhere. Code and parameters of programs
/// are never logged above debug.
fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_env_var("CLOISTER_LOG")
        .try_from_env()
        .unwrap_or_else(|_| EnvFilter::new("info,refinery_core=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}
