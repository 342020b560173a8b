//! A small HTTP backend on loopback that remembers what was asked of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Answers every GET with `{"path": …}` until the test ends.
pub struct Backend {
    address: String,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    pub fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(&stream.unwrap(), &seen));
            }
        });
        Backend { address, paths }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was asked, in the order in which it came.
    pub fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    pub fn was_asked(&self, path: &str) -> bool {
        self.paths.lock().unwrap().iter().any(|seen| seen == path)
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    while reader.read_line(&mut first).is_ok_and(|count| count > 0) {
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
            line.clear();
        }
        let body = format!("{{\"path\":\"{path}\"}}");
        seen.lock().unwrap().push(path);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut out = stream;
        if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
        first.clear();
    }
}
