//! Frames: four bytes of big-endian length, then that many bytes of a message, which is JSON for Node and postcard for
//! the analyzer.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd as _;

use bytes::{BufMut as _, BytesMut};
use futures_util::StreamExt as _;
use nix::sys::socket::{MsgFlags, recv};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::socket::{Writer, split};

/// The length before each frame.
const HEAD_BYTES: usize = 4;

/// What an empty buffer may hold.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Why a connection to a jailed process is over.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the process closed its connection")]
    Closed,
    #[error("the process sent garbage: {0}")]
    Garbage(String),
    #[error("the message is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

/// How messages become the bodies of frames.
pub trait Encoding {
    fn write(message: &impl Serialize, body: &mut BytesMut) -> io::Result<()>;

    /// The reason of a failure quotes nothing: a hostile text belongs in no log and no answer.
    fn read<M: DeserializeOwned>(body: &[u8]) -> Result<M, String>;
}

pub struct Json;

impl Encoding for Json {
    fn write(message: &impl Serialize, body: &mut BytesMut) -> io::Result<()> {
        serde_json::to_writer(body.writer(), message).map_err(io::Error::from)
    }

    fn read<M: DeserializeOwned>(body: &[u8]) -> Result<M, String> {
        serde_json::from_slice(body).map_err(|error| format!("no message ({:?} error)", error.classify()))
    }
}

pub struct Postcard;

impl Encoding for Postcard {
    fn write(message: &impl Serialize, body: &mut BytesMut) -> io::Result<()> {
        let encoded = analyzer::encode(message).ok_or_else(|| io::Error::other("it cannot be encoded"))?;
        body.extend_from_slice(&encoded);
        Ok(())
    }

    fn read<M: DeserializeOwned>(body: &[u8]) -> Result<M, String> {
        analyzer::decode(body).ok_or_else(|| "no message".to_owned())
    }
}

/// One end of a protocol socket: `In` is received, `Out` is sent.
pub struct Connection<In, Out, E = Json> {
    reader: FramedRead<Receiver, LengthDelimitedCodec>,
    writer: Writer,
    /// Frames that wait to be sent; who queues them bounds them.
    queued: BytesMut,
    in_bytes_max: usize,
    out_bytes_max: usize,
    messages: PhantomData<fn(Out, E) -> In>,
}

impl<In: DeserializeOwned, Out: Serialize, E: Encoding> Connection<In, Out, E> {
    pub fn new(
        socket: UnixStream,
        in_bytes_max: usize,
        out_bytes_max: usize,
    ) -> io::Result<Connection<In, Out, E>> {
        let (reader, writer) = split(socket)?;
        Ok(Connection {
            reader: FramedRead::new(reader, codec(in_bytes_max)),
            writer,
            queued: BytesMut::new(),
            in_bytes_max,
            out_bytes_max,
            messages: PhantomData,
        })
    }

    /// The socket, for somebody who blocks on it. Only a connection that is quiet loses nothing by that.
    pub fn into_socket(self) -> io::Result<std::os::unix::net::UnixStream> {
        drop(self.reader);
        self.writer.into_blocking()
    }

    /// The next message. Sends meanwhile what is queued; safe to drop while it waits.
    pub async fn receive(&mut self) -> Result<In, FrameError> {
        loop {
            if let Some(message) = self.receive_or_room(usize::MAX).await? {
                return Ok(message);
            }
        }
    }

    /// The same, or none as soon as a queue of more than so many bytes has become shorter.
    pub async fn receive_or_room(&mut self, queued_bytes_max: usize) -> Result<Option<In>, FrameError> {
        let was_full = self.queued.len() > queued_bytes_max;
        let frame = loop {
            tokio::select! {
                frame = self.reader.next() => break frame,
                sent = self.writer.send(&mut self.queued), if !self.queued.is_empty() => written(sent)?,
            }
            self.forget_room();
            if was_full && self.queued.len() <= queued_bytes_max {
                return Ok(None);
            }
        };
        let frame = match frame {
            None => return Err(FrameError::Closed),
            // The one thing that the codec refuses is a length.
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(FrameError::TooLarge { bytes_max: self.in_bytes_max });
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(FrameError::Closed);
            }
            Some(Err(error)) => return Err(FrameError::Io(error)),
            Some(Ok(frame)) => frame,
        };
        E::read(&frame).map(Some).map_err(FrameError::Garbage)
    }

    /// Whether the other side neither sent anything nor closed its end since the last message. One that
    /// is kept between executions has to be quiet.
    pub fn is_quiet(&self) -> bool {
        self.reader.read_buffer().is_empty() && self.peek() == Err(nix::errno::Errno::EAGAIN)
    }

    /// Whether the other side closed its end and nothing that it sent is left to be read.
    pub fn has_closed(&self) -> bool {
        self.reader.read_buffer().is_empty() && self.peek() == Ok(0)
    }

    fn peek(&self) -> nix::Result<usize> {
        let socket = self.reader.get_ref().as_raw_fd();
        recv(socket, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
    }

    pub async fn send(&mut self, message: &Out) -> Result<(), FrameError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Puts a message behind those that wait to be sent.
    pub fn queue(&mut self, message: &Out) -> Result<(), FrameError> {
        let start = self.queued.len();
        self.queued.put_u32(0);
        let encoded = E::write(message, &mut self.queued).map_err(FrameError::Io);
        let length = self.queued.len() - start - HEAD_BYTES;
        let head = u32::try_from(length).ok().filter(|_| length <= self.out_bytes_max);
        let head = encoded.and_then(|()| head.ok_or(FrameError::TooLarge { bytes_max: self.out_bytes_max }));
        match head {
            Ok(head) => self.queued[start..start + HEAD_BYTES].copy_from_slice(&head.to_be_bytes()),
            Err(_) => self.queued.truncate(start),
        }
        head.map(drop)
    }

    /// Sends what is queued; safe to drop while it waits.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        while !self.queued.is_empty() {
            written(self.writer.send(&mut self.queued).await)?;
        }
        self.forget_room();
        Ok(())
    }

    /// A buffer that was large once is not kept for as long as the connection.
    fn forget_room(&mut self) {
        if self.queued.is_empty() && self.queued.capacity() > KEPT_BYTES_MAX {
            self.queued = BytesMut::new();
        }
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued.len()
    }
}

fn written(result: io::Result<()>) -> Result<(), FrameError> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => FrameError::Closed,
        _ => FrameError::Io(error),
    })
}

fn codec(bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_type::<u32>()
        .big_endian()
        .max_frame_length(bytes_max)
        .new_codec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FromGuest, ToGuest};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    async fn received(bytes: &[u8]) -> Result<FromGuest, FrameError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        Connection::<FromGuest, ToGuest>::new(ours, 64, 64).unwrap().receive().await
    }

    #[tokio::test]
    async fn frames_are_checked_before_they_are_read() {
        assert!(matches!(received(b"\0\0\0\x0c{\"ready\":{}}").await, Ok(FromGuest::Ready {})));
        assert!(matches!(received(b"\0\0\0\x02{}").await, Err(FrameError::Garbage(_))));
        assert!(matches!(received(b"\xff\xff\xff\xff").await, Err(FrameError::TooLarge { .. })));
        assert!(matches!(received(b"\0\0\0\0").await, Err(FrameError::Garbage(_))));
        assert!(matches!(received(b"").await, Err(FrameError::Closed)));
        assert!(received(b"\0\0\0\x0c{\"rea").await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_postcard_is_garbage() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours =
            Connection::<analyzer::Answer, analyzer::Request, Postcard>::new(ours, 64, 64).unwrap();
        theirs.write_all(b"\0\0\0\x01\x02\0\0\0\x02{}").await.unwrap();
        assert!(matches!(ours.receive().await, Ok(analyzer::Answer::TooComplex)));
        assert!(matches!(ours.receive().await, Err(FrameError::Garbage(_))));
    }

    #[tokio::test]
    async fn who_spoke_or_left_is_not_quiet() {
        let connection = |socket| Connection::<FromGuest, ToGuest>::new(socket, 64, 64).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = connection(ours);
        assert!(ours.is_quiet());
        theirs.write_all(b"\0\0\0\x0c{\"ready\":{}}\0").await.unwrap();
        assert!(!ours.is_quiet());
        ours.receive().await.unwrap();
        assert!(!ours.is_quiet(), "a byte of the next frame has come along");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = connection(ours);
        drop(theirs);
        assert!(!ours.is_quiet());
    }

    #[tokio::test]
    async fn a_lie_is_not_quoted() {
        let error = received(b"\0\0\0\x11{\"hostile text\":0}").await.unwrap_err();
        assert!(matches!(error, FrameError::Garbage(_)) && !error.to_string().contains("hostile"), "{error}");
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_not_sent() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::<FromGuest, ToGuest>::new(ours, 64, 64).unwrap();
        let message = ToGuest::Throw {
            execution_id: "e".to_owned(),
            call_id: 1,
            error: super::super::ErrorDetails { message: "x".repeat(100), ..Default::default() },
        };
        assert!(matches!(connection.send(&message).await, Err(FrameError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn nothing_of_a_message_that_cannot_be_encoded_is_sent() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(2))?;
                serde::ser::SerializeSeq::serialize_element(&mut list, "half")?;
                Err(serde::ser::Error::custom("broken"))
            }
        }
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::<FromGuest, Broken>::new(ours, 64, 64).unwrap();
        assert!(matches!(connection.queue(&Broken), Err(FrameError::Io(_))));
        assert_eq!(connection.queued_bytes(), 0);
    }

    #[tokio::test]
    async fn what_is_queued_is_sent_in_its_order_while_a_message_is_awaited() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = Connection::<FromGuest, ToGuest>::new(ours, 64, 1 << 20).unwrap();
        let mut theirs = Connection::<ToGuest, FromGuest>::new(theirs, 1 << 20, 64).unwrap();
        // More than the socket holds, so one of them waits half written.
        let answer = |call_id| ToGuest::Throw {
            execution_id: "e".to_owned(),
            call_id,
            error: super::super::ErrorDetails { message: "x".repeat(400_000), ..Default::default() },
        };
        for call_id in 1..=4 {
            ours.queue(&answer(call_id)).unwrap();
        }
        assert!(ours.queued_bytes() > 1_600_000);
        let unread = tokio::time::timeout(std::time::Duration::from_millis(20), ours.receive()).await;
        assert!(unread.is_err() && ours.queued_bytes() > 0, "nobody has read or said anything");
        let answer = async {
            for expected in 1..=4 {
                let message = theirs.receive().await.unwrap();
                assert!(matches!(message, ToGuest::Throw { call_id, .. } if call_id == expected));
            }
            theirs.send(&FromGuest::Ready {}).await.unwrap();
        };
        let (received, ()) = tokio::join!(ours.receive(), answer);
        assert!(matches!(received, Ok(FromGuest::Ready {})));
        assert_eq!(ours.queued_bytes(), 0);
        assert!(ours.queued.capacity() <= KEPT_BYTES_MAX, "{} bytes are kept", ours.queued.capacity());
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_that_the_other_side_is_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = Connection::<FromGuest, ToGuest>::new(ours, 64, 1 << 20).unwrap();
        let error = super::super::ErrorDetails { message: "x".repeat(1_000_000), ..Default::default() };
        ours.queue(&ToGuest::Throw { execution_id: "e".to_owned(), call_id: 1, error }).unwrap();
        let mut sent = Box::pin(ours.flush());
        assert!(futures_util::poll!(&mut sent).is_pending(), "more than the socket holds");
        drop(theirs);
        assert!(matches!(sent.await, Err(FrameError::Closed)));
    }

    /// Everything that the decoder makes of bytes that come in pieces, until the connection is over.
    fn decoded(pieces: &[Vec<u8>], bytes_max: usize) -> (Vec<String>, FrameError) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut connection = Connection::<FromGuest, ToGuest>::new(ours, bytes_max, 64).unwrap();
            let mut messages = Vec::new();
            let send = async {
                for piece in pieces {
                    // It is over as soon as the decoder gives up.
                    let _ = theirs.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                drop(theirs);
            };
            let receive = async {
                loop {
                    match connection.receive().await {
                        Ok(message) => messages.push(serde_json::to_string(&message).unwrap()),
                        Err(error) => return error,
                    }
                }
            };
            let ((), error) = tokio::join!(send, receive);
            (messages, error)
        })
    }

    fn framed(message: &FromGuest) -> Vec<u8> {
        let body = serde_json::to_vec(message).unwrap();
        [&u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
    }

    fn log(text: String) -> FromGuest {
        FromGuest::Log {
            execution_id: "e".to_owned(),
            level: super::super::LogLevel::Log,
            text,
            truncated: false,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_error_and_nothing_else(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let (messages, _) = decoded(&pieces, 256);
            prop_assert!(messages.len() <= pieces.concat().len() / 4);
        }

        #[test]
        fn frames_arrive_whole_however_they_are_cut_and_garbage_ends_them(
            texts in prop::collection::vec("[a-z]{0,20}", 1..6),
            cut in 1_usize..40,
            garbage in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let sent: Vec<FromGuest> = texts.into_iter().map(log).collect();
            let bytes = [sent.iter().map(framed).collect::<Vec<_>>().concat(), garbage].concat();
            let pieces: Vec<Vec<u8>> = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            let (messages, _) = decoded(&pieces, 256);
            let expected: Vec<String> = sent.iter().map(|message| serde_json::to_string(message).unwrap()).collect();
            prop_assert_eq!(&messages[..expected.len()], &expected[..]);
        }

        #[test]
        fn no_frame_over_the_limit_is_read(excess in 1_u32..1000) {
            let head = (64 + excess).to_be_bytes().to_vec();
            let (messages, error) = decoded(&[head, vec![b' '; 2000]], 64);
            prop_assert!(messages.is_empty());
            prop_assert!(matches!(error, FrameError::TooLarge { bytes_max: 64 }), "{}", error);
        }

        #[test]
        fn a_message_with_any_byte_changed_is_read_or_refused_and_never_more(place in 0_usize..60, value in any::<u8>()) {
            let mut bytes = framed(&log("text".to_owned()));
            let place = place % bytes.len();
            bytes[place] = value;
            let (messages, _) = decoded(&[bytes], 256);
            prop_assert!(messages.len() <= 1);
        }
    }
}
