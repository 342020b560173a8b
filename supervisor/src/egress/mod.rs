//! Outgoing connections of a jailed process: one socket file per address that it may reach.
//!
//! ```text
//!  host ──connect(/egress/api.example.com:443)──► listener ──TCP──► api.example.com:443
//! ```
//!
//! The files are the allow-list: a jail has no other socket to connect to. Names are resolved here,
//! when a connection is made. TLS passes through untouched. This is the only module that opens
//! outbound connections.

mod address;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use address::{Target, TargetError};

use crate::config::limits;

/// After a failed accept (no free descriptor), before the next.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The open egress of one process; dropping it closes every listener and connection.
#[derive(Debug)]
pub struct Egress {
    last_failure: Failure,
    _close: DropGuard,
}

type Failure = Arc<Mutex<Option<String>>>;

impl Egress {
    /// Makes `folder` and listens in it on one socket file per distinct address of `urls`.
    pub fn open<'a>(folder: &Path, urls: impl Iterator<Item = &'a String>) -> Result<Egress, EgressError> {
        let io = |source| EgressError::Io { path: folder.to_owned(), source };
        std::fs::create_dir(folder).map_err(io)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        let opened = std::fs::File::open(folder).map_err(io)?;
        let targets: BTreeSet<Target> = urls.map(|url| Target::of_url(url)).collect::<Result<_, _>>()?;
        let close = CancellationToken::new();
        let last_failure = Failure::default();
        let connections = Arc::new(Semaphore::new(limits::EGRESS_CONNECTIONS_MAX));
        for target in targets {
            // A socket path is at most 107 bytes long, so it is bound through the folder's descriptor
            // and gets its name afterwards.
            let short = PathBuf::from(format!("/proc/self/fd/{}/socket", opened.as_raw_fd()));
            let listener = listen(&short).map_err(io)?;
            std::fs::rename(&short, folder.join(target.file_name())).map_err(io)?;
            let forward = Forward {
                target,
                connections: Arc::clone(&connections),
                last_failure: Arc::clone(&last_failure),
                close: close.clone(),
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "ends with its process, which a shutdown waits for"
            )]
            tokio::spawn(forward.accept(listener));
        }
        Ok(Egress { last_failure, _close: close.drop_guard() })
    }

    /// Why the latest connection was not made, once. A socket file cannot carry the reason to the
    /// process, which only sees its connection end.
    pub fn take_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Every jail has its own folder, so who may use a socket file is decided by who sees the folder; the
/// file itself is open to every user. The listener's own `mode` option is subject to the umask.
fn listen(path: &Path) -> io::Result<Listener> {
    let listener = ListenerOptions::new()
        .name(path.to_fs_name::<GenericFilePath>()?)
        .reclaim_name(false)
        .create_tokio()?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Accepts connections for one target.
#[derive(Clone)]
struct Forward {
    target: Target,
    connections: Arc<Semaphore>,
    last_failure: Failure,
    close: CancellationToken,
}

impl Forward {
    async fn accept(self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.close.cancelled() => return,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "an egress connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                self.fail(format!("more than {} connections at once", limits::EGRESS_CONNECTIONS_MAX));
                continue;
            };
            let forward = self.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the semaphore, and ends with its process"
            )]
            tokio::spawn(async move {
                tokio::select! {
                    () = forward.relay(stream) => {}
                    () = forward.close.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    async fn relay(&self, mut inner: Stream) {
        match tokio::time::timeout(limits::EGRESS_CONNECT_TIME_MAX, self.connect()).await {
            Err(_) => {
                self.fail(format!("no connection within {} s", limits::EGRESS_CONNECT_TIME_MAX.as_secs()))
            }
            Ok(Err(error)) => self.fail(error.to_string()),
            Ok(Ok(mut outer)) => {
                // Either side may end a connection in any way; both then end.
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address that may be reached");
        for address in self.target.resolve().await? {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that opens outbound connections, to a checked address"
            )]
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn fail(&self, reason: String) {
        tracing::debug!(target = self.target.file_name(), reason, "an egress connection was not made");
        let failure = format!("{}: {reason}", self.target.file_name());
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_socket_file_leads_to_its_backend_and_ends_with_the_egress() {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = backend.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("egress");
        let egress = Egress::open(&inside, [format!("http://127.0.0.1:{port}/a")].iter()).unwrap();
        let path = inside.join(format!("127.0.0.1:{port}"));
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let (mut accepted, _) = backend.accept().await.unwrap();
        let mut heard = [0; 4];
        accepted.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        drop(egress);
        assert_eq!(client.read(&mut heard).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_backend_that_is_down_leaves_its_reason() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("egress");
        let egress = Egress::open(&inside, [format!("http://127.0.0.1:{port}")].iter()).unwrap();
        let mut client = UnixStream::connect(inside.join(format!("127.0.0.1:{port}"))).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        let reason = egress.take_failure().unwrap();
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(egress.take_failure(), None);
    }
}
