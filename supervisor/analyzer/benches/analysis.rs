//! What an analysis costs, the pipe to the analyzer included: `cargo bench -p analyzer`.
#![expect(clippy::unwrap_used, reason = "a bench that fails has to stop")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use analyzer::{Answer, Request, Submission};
use criterion::{Criterion, criterion_group, criterion_main};

/// A program of about so many bytes, with a call for each line.
fn program(bytes: usize) -> String {
    let line = "  const rates = await GetRates({ day: 1 }); total += rates[0].ok;\n";
    format!(
        "async function main() {{\n  let total = 0;\n{}  return total;\n}}\n",
        format!("{{ {line} }}").repeat(bytes / line.len())
    )
}

fn analysis(criterion: &mut Criterion) {
    #[expect(
        clippy::disallowed_methods,
        reason = "measured without its jail, which costs nothing afterwards"
    )]
    let mut child = Command::new(env!("CARGO_BIN_EXE_analyzer"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    for bytes in [100, 2_000, 50_000] {
        let submission = Submission {
            source: program(bytes),
            functions: vec!["GetRates".to_owned()],
            ..Submission::default()
        };
        let request = analyzer::encode(&Request::Program(submission)).unwrap();
        criterion.bench_function(&format!("analysis: {bytes} bytes"), |bencher| {
            bencher.iter(|| {
                input.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
                input.write_all(&request).unwrap();
                let mut head = [0; 4];
                output.read_exact(&mut head).unwrap();
                let mut answer = vec![0; u32::from_be_bytes(head) as usize];
                output.read_exact(&mut answer).unwrap();
                assert!(matches!(analyzer::decode(&answer), Some(Answer::Program(_))));
            });
        });
    }
    drop(input);
    child.wait().unwrap();
}

criterion_group!(benches, analysis);
criterion_main!(benches);
