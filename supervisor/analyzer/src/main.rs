//! The analyzer: answers requests on its standard input until that is closed.
//!
//! It decides nothing; it says what a source is. A source that makes it abort costs the request.

mod calls;
mod edits;
mod entry;
mod flow;
mod forms;
mod implementation;
mod names;
mod probe;
mod program;
mod size;
mod source;
mod tokens;
mod types;

use std::io::{self, BufReader, BufWriter, Read, Write};

use analyzer::{Answer, FRAME_BYTES_MAX, Request};

fn main() -> io::Result<()> {
    if let [_, option, act, target] = std::env::args().collect::<Vec<_>>().as_slice()
        && option == "--probe"
    {
        return probe::run(act, target);
    }
    let mut input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, Output);
    while let Some(frame) = read_frame(&mut input)? {
        let request = analyzer::decode(&frame).ok_or_else(|| io::Error::other("this is no request"))?;
        let answer = match request {
            Request::Program(submission) => program::analyze(&submission),
            Request::Implementation { source } => implementation::analyze(&source),
        };
        write_frame(&mut output, &answer)?;
        // Answers to short sources that were asked together are sent together.
        if !holds_short_frame(input.buffer()) {
            output.flush()?;
        }
    }
    Ok(())
}

/// The standard output, without the buffer of `io::stdout()`: that one writes what follows the last line break of
/// an answer by itself, and the supervisor wakes twice.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is read and written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is answered in a moment.
const SHORT_BYTES: usize = 16 * 1024;

/// Whether the next request is there as a whole, and nobody waits long for its answer.
fn holds_short_frame(buffer: &[u8]) -> bool {
    buffer.split_first_chunk().is_some_and(|(head, rest)| {
        let length = u32::from_be_bytes(*head) as usize;
        length <= SHORT_BYTES && length <= rest.len()
    })
}

fn read_frame(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("the request is too large"));
    }
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn write_frame(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let body = analyzer::encode(answer).ok_or_else(|| io::Error::other("the answer cannot be told"))?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(&body)
}
