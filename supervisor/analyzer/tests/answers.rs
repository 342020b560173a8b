//! The analyzer as a process, as a desk of the supervisor uses it.

use std::error::Error;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use analyzer::{Answer, Request, Submission};

#[test]
#[expect(clippy::disallowed_methods, reason = "no supervisor is here that could start it")]
fn answers_with_one_write() -> Result<(), Box<dyn Error>> {
    // Each write becomes a message.
    let (output, messages) = UnixDatagram::pair()?;
    messages.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut analyzer = Command::new(env!("CARGO_BIN_EXE_analyzer"))
        .stdin(Stdio::piped())
        .stdout(OwnedFd::from(output))
        .spawn()?;
    let source = "async function main() {\n  return 1\n}".to_owned();
    let request = Request::Program(Submission { source, ..Submission::default() });
    let request = analyzer::encode(&request).ok_or("this cannot be told")?;
    let mut input = analyzer.stdin.take().ok_or("there is no input")?;
    input.write_all(&[&u32::try_from(request.len())?.to_be_bytes(), &request[..]].concat())?;

    let mut message = [0; 4096];
    let length = messages.recv(&mut message)?;
    drop(input);
    assert!(analyzer.wait()?.success());
    let (head, body) = message[..length].split_first_chunk().ok_or("a message without a head")?;
    assert_eq!(u32::from_be_bytes(*head) as usize, body.len(), "the first message is a whole answer");
    assert!(matches!(analyzer::decode(body), Some(Answer::Program(_))));
    Ok(())
}
