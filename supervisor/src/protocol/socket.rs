//! A socket that the event loop watches for what can be read, and for room only while there is none.
//!
//! Linux tells whoever watches a socket for room each time when the other end has read something, thus after every
//! message: of a dozen times that an execution would wake the supervisor, three to five would be for nothing.
//!
//! What watches for one of the two only, and reads and writes any descriptor, is Tokio's for pipes.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

/// The end at which messages are sent.
pub struct Writer {
    socket: UnixStream,
    /// While room is waited for.
    room: Option<Sender>,
}

/// Gives the end at which messages arrive, and the other one.
pub fn split(socket: tokio::net::UnixStream) -> io::Result<(Receiver, Writer)> {
    let socket = socket.into_std()?;
    let reader = Receiver::from_owned_fd_unchecked(OwnedFd::from(socket.try_clone()?))?;
    Ok((reader, Writer { socket, room: None }))
}

impl Writer {
    /// Sends some of what is queued; safe to drop while it waits.
    pub async fn send(&mut self, queued: &mut BytesMut) -> io::Result<()> {
        let room = match self.room.take() {
            Some(room) => room,
            None => match self.socket.write(queued) {
                Ok(sent) => {
                    queued.advance(sent);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Sender::from_owned_fd_unchecked(OwnedFd::from(self.socket.try_clone()?))?
                }
                Err(error) => return Err(error),
            },
        };
        self.room.insert(room).write_buf(queued).await?;
        self.room = None;
        Ok(())
    }

    /// The socket, for somebody who blocks on it.
    pub fn into_blocking(self) -> io::Result<UnixStream> {
        self.socket.set_nonblocking(false)?;
        Ok(self.socket)
    }
}
