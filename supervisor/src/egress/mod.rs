//! Outgoing connections of a jailed process: one socket file per address that it may reach.
//!
//! ```text
//!  host ──connect(/egress/api.example.com:443)──► listener ──TCP──► api.example.com:443
//! ```
//!
//! The files are the allow-list: a jail has no other socket to connect to. Names are resolved here,
//! when a connection is made. TLS passes through untouched. This is the only module that opens
//! outbound connections.

mod activity;
mod address;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use ipnet::IpNet;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::io::InspectReader;
use tokio_util::sync::{CancellationToken, DropGuard};

use activity::Activity;
pub use activity::{EgressEvent, EgressState};
use address::ResolveError;
pub use address::{Target, TargetError, may_speak_tls};

use crate::config::limits;

/// After a failed accept (no free descriptor), before the next.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The socket file on which the preload tells which address it refused. No target has this name.
const REFUSED_FILE: &str = "refused";

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
    activity: SharedActivity,
    _close: DropGuard,
}

type SharedActivity = Arc<Mutex<Activity>>;

impl Egress {
    /// Makes `folder` and listens in it on one socket file per distinct address of `urls`.
    /// `allowed` are the special addresses that the operator lets names lead to.
    pub fn open<'a>(
        folder: &Path,
        urls: impl Iterator<Item = &'a String>,
        allowed: &Arc<[IpNet]>,
    ) -> Result<Egress, EgressError> {
        let io = |source| EgressError::Io { path: folder.to_owned(), source };
        std::fs::create_dir(folder).map_err(io)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        let opened = std::fs::File::open(folder).map_err(io)?;
        let targets: BTreeSet<Target> = urls.map(|url| Target::of_url(url)).collect::<Result<_, _>>()?;
        let close = CancellationToken::new();
        let activity = SharedActivity::default();
        let connections = Arc::new(Semaphore::new(limits::EGRESS_CONNECTIONS_MAX));
        let reports = Arc::new(Semaphore::new(limits::EGRESS_REPORTS_MAX));
        let lookups = Arc::new(Semaphore::new(limits::EGRESS_LOOKUPS_MAX));
        let purposes = targets.into_iter().map(Purpose::Forward).chain([Purpose::Report]);
        for purpose in purposes {
            let name = purpose.file_name();
            // A socket path is at most 107 bytes long, so it is bound through the folder's descriptor
            // and gets its name afterwards.
            let short = PathBuf::from(format!("/proc/self/fd/{}/socket", opened.as_raw_fd()));
            let listener = listen(&short).map_err(io)?;
            std::fs::rename(&short, folder.join(&name)).map_err(io)?;
            let door = Door {
                name: name.into(),
                allowed: Arc::clone(allowed),
                connections: Arc::clone(if matches!(purpose, Purpose::Report) {
                    &reports
                } else {
                    &connections
                }),
                lookups: Arc::clone(&lookups),
                purpose: Arc::new(purpose),
                activity: Arc::clone(&activity),
                close: close.clone(),
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "ends with its process, which a shutdown waits for"
            )]
            tokio::spawn(door.accept(listener));
        }
        Ok(Egress { activity, _close: close.drop_guard() })
    }

    /// Why the latest connection was not made, once. A socket file cannot carry the reason to the
    /// process, which only sees its connection end.
    pub fn take_failure(&self) -> Option<String> {
        locked(&self.activity).take_last_failure()
    }

    /// What the connections did since the last time.
    pub fn take_events(&self) -> Vec<EgressEvent> {
        locked(&self.activity).take()
    }
}

fn locked(activity: &SharedActivity) -> MutexGuard<'_, Activity> {
    activity.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What a socket file is for.
enum Purpose {
    /// Leads to one address.
    Forward(Target),
    /// Takes the name of an address that the preload refused.
    Report,
}

impl Purpose {
    fn file_name(&self) -> String {
        match self {
            Purpose::Forward(target) => target.file_name(),
            Purpose::Report => REFUSED_FILE.to_owned(),
        }
    }
}

/// One socket file.
#[derive(Clone)]
struct Door {
    name: Arc<str>,
    purpose: Arc<Purpose>,
    allowed: Arc<[IpNet]>,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    activity: SharedActivity,
    close: CancellationToken,
}

impl Door {
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
                if matches!(*self.purpose, Purpose::Forward(_)) {
                    let reason = format!("more than {} connections at once", limits::EGRESS_CONNECTIONS_MAX);
                    self.not_made(&self.name, EgressState::Refused, &reason);
                }
                continue;
            };
            let door = self.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the semaphore, and ends with its process"
            )]
            tokio::spawn(async move {
                tokio::select! {
                    () = door.serve(stream) => {}
                    () = door.close.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    async fn serve(&self, stream: Stream) {
        match self.purpose.as_ref() {
            Purpose::Forward(target) => self.forward(target, stream).await,
            Purpose::Report => self.take_report(stream).await,
        }
    }

    async fn forward(&self, target: &Target, inner: Stream) {
        let time_max = limits::EGRESS_CONNECT_TIME_MAX;
        let outer = match tokio::time::timeout(time_max, self.connect(target)).await {
            Ok(Ok(outer)) => outer,
            Ok(Err((state, reason))) => return self.not_made(&self.name, state, &reason),
            Err(_) => {
                let reason = format!("no connection within {} s", time_max.as_secs());
                return self.not_made(&self.name, EgressState::Failed, &reason);
            }
        };
        locked(&self.activity).connected(&self.name);
        let mut inner =
            InspectReader::new(inner, |bytes: &[u8]| locked(&self.activity).sent(&self.name, bytes.len()));
        let mut outer = InspectReader::new(outer, |bytes: &[u8]| {
            locked(&self.activity).received(&self.name, bytes.len())
        });
        // Either side may end a connection in any way; both then end.
        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, (EgressState, String)> {
        let mut last = "the name has no address".to_owned();
        for address in self.resolve(target).await? {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that opens outbound connections, to a checked address"
            )]
            let connected = TcpStream::connect(address).await;
            match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err((EgressState::Failed, last))
    }

    /// A lookup holds a thread until the resolver gives up, whoever still waits for it; so it keeps its
    /// permit until then.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, (EgressState, String)> {
        let failed = |reason: String| (EgressState::Failed, reason);
        let permit =
            Arc::clone(&self.lookups).acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let (target, allowed) = (target.clone(), Arc::clone(&self.allowed));
        #[expect(clippy::disallowed_methods, reason = "bounded by the permits, and ends with the lookup")]
        let lookup = tokio::spawn(async move {
            let found = target.resolve(&allowed).await;
            drop(permit);
            found
        });
        match lookup.await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error @ ResolveError::Special { .. })) => Err((EgressState::Refused, error.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The preload waits for the end of this connection before it tells its caller, so the event is in
    /// the ledger of the execution that caused it. What it says is hostile: only printable text counts.
    async fn take_report(&self, stream: Stream) {
        let mut text = String::new();
        let mut bounded = stream.take(limits::EGRESS_REPORT_BYTES_MAX);
        let read = bounded.read_to_string(&mut text);
        match tokio::time::timeout(limits::EGRESS_REPORT_TIME_MAX, read).await {
            Ok(Ok(1..)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                self.not_made(
                    &text,
                    EgressState::Refused,
                    "it is no backend of this environment (see backendUrls)",
                );
            }
            _ => tracing::debug!("a report of a refused address was no text"),
        }
    }

    fn not_made(&self, backend: &str, state: EgressState, reason: &str) {
        tracing::debug!(backend, ?state, reason, "an egress connection was not made");
        locked(&self.activity).not_made(backend, state, reason);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    fn open(folder: &Path, url: &str) -> Egress {
        Egress::open(folder, [url.to_owned()].iter(), &Arc::from([])).unwrap()
    }

    #[tokio::test]
    async fn a_socket_file_leads_to_its_backend_and_ends_with_the_egress() {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = backend.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("egress");
        let egress = open(&inside, &format!("http://127.0.0.1:{port}/a"));
        let path = inside.join(format!("127.0.0.1:{port}"));
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let (mut accepted, _) = backend.accept().await.unwrap();
        let mut heard = [0; 4];
        accepted.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        accepted.write_all(b"answer").await.unwrap();
        client.read_exact(&mut [0; 6]).await.unwrap();
        let [event] = &egress.take_events()[..] else { panic!("one event") };
        assert_eq!((event.connections, event.bytes_in, event.bytes_out), (1, 6, 4));
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
        let egress = open(&inside, &format!("http://127.0.0.1:{port}"));
        let mut client = UnixStream::connect(inside.join(format!("127.0.0.1:{port}"))).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        let reason = egress.take_failure().unwrap();
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(egress.take_failure(), None);
        assert_eq!(egress.take_events()[0].state, EgressState::Failed);
    }

    #[tokio::test]
    async fn an_address_that_the_preload_refused_is_an_event() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("egress");
        let egress = open(&inside, "http://127.0.0.1:1");
        for text in [b"evil.example:443".as_slice(), b"two words", b""] {
            let mut client = UnixStream::connect(inside.join(REFUSED_FILE)).await.unwrap();
            client.write_all(text).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        }
        let [event] = &egress.take_events()[..] else { panic!("one event") };
        assert_eq!((event.backend.as_str(), event.state), ("evil.example:443", EgressState::Refused));
    }
}
