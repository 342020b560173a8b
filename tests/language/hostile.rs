//! Sources that are made to hurt whoever reads them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::programs::{programs, shop};
use crate::support::{Supervisor, children, wait_for};

fn execute(supervisor: &Supervisor, environment: &str, code: &str) -> (u16, Value) {
    let body =
        json!({ "environmentName": environment, "userAgentId": "agent", "code": code, "timeout": 1000 });
    let answer = supervisor.post("/api/execute", &body);
    (answer.status, answer.body)
}

/// What opens, what stands inside, and what closes.
const NESTS: [(&str, &str, &str); 28] = [
    ("[", "", "]"),
    ("(", "1", ")"),
    ("{", "", "}"),
    ("1+", "1", ""),
    ("1&&", "1", ""),
    ("2**", "1", ""),
    ("!", "1", ""),
    ("- ", "1", ""),
    ("typeof ", "1", ""),
    ("await ", "1", ""),
    ("new ", "a", ""),
    ("a=", "1", ""),
    ("1?", "1", ":1"),
    ("1?1:", "1", ""),
    ("`${", "1", "}`"),
    ("a=>", "1", ""),
    ("({a:", "1", "})"),
    ("f(", "", ")"),
    ("if(1);else ", ";", ""),
    ("while(1)", ";", ""),
    ("try{", "", "}catch{}"),
    ("function f(){", "", "}"),
    ("(()=>{", "", "})()"),
    ("class A{static a=", "1", "}"),
    ("async()=>", "1", ""),
    ("x.a(", "", ")"),
    ("let a: Array<", "number", ">"),
    ("/(", "", ")/"),
];

#[test]
fn deep_nesting_of_every_kind_is_too_complex_and_harms_nobody() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let nested = |(open, inside, close): (&str, &str, &str), levels: usize| match open {
        // One annotation and one literal hold all the levels.
        "let a: Array<" => format!("let a: {}{inside}{}", "Array<".repeat(levels), close.repeat(levels)),
        "/(" => format!("/{}{}/", "(".repeat(levels), ")".repeat(levels)),
        _ => format!("{}{inside}{}", open.repeat(levels), close.repeat(levels)),
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            (0..100).for_each(|_| assert_eq!(supervisor.execute_for("other", "return 1")["result"], 1));
        });
        for nest in NESTS {
            let (open, inside, close) = nest;
            // As many as there is room for.
            let levels = (255_000 / (open.len() + close.len())).min(100_000);
            let started = Instant::now();
            let (status, answer) = execute(&supervisor, "test", &nested(nest, levels));
            assert_eq!(
                (status, &answer["code"]),
                (422, &json!("code_too_complex")),
                "{open}{inside}{close}: {answer}"
            );
            assert!(started.elapsed() < Duration::from_secs(2), "{open}: {:?}", started.elapsed());
            // The control: some levels are nothing special, and no reader gives up on them.
            let (status, answer) = execute(&supervisor, "test", &nested(nest, 60));
            let told = answer["errorDetails"]["message"].as_str().unwrap_or_default();
            assert!(status == 200 && !told.contains("call stack"), "{open}: {answer}");
        }
        other.join().unwrap();
    });
    for (open, close) in [("a.b", ""), ("f()", "()"), ("a[0]", "[0]"), ("a?.b", "?.b"), ("f``", "``")] {
        let chain = format!("{open}{}", if close.is_empty() { ".b" } else { close }.repeat(60_000));
        assert_eq!(execute(&supervisor, "test", &chain).1["code"], "code_too_complex", "{open}");
    }
}

const CALLERS: usize = 16;
const SOURCES_EACH: usize = 30;

/// Many ask at the same time what their sources are, each with an error on a line of its own, and some of them too
/// deep to be read. All are told what is theirs, or that nobody has time for them: gives how often that was.
fn ask_together(supervisor: &Supervisor, answered: &AtomicUsize) -> usize {
    let is_busy = |caller: usize, number: usize| {
        let is_hostile = number % 10 == 7;
        let lines = caller * 100 + number;
        let code = if is_hostile { "(".repeat(8_000) } else { "\n".repeat(lines) + "let x = ;" };
        let body =
            json!({ "environmentName": "test", "userAgentId": format!("agent-{caller}"), "code": code });
        let answer = supervisor.post("/api/analyze", &body);
        answered.fetch_add(1, Ordering::Relaxed);
        match (answer.status, is_hostile) {
            (422, true) => assert_eq!(answer.body["code"], "code_too_complex"),
            (400, false) => {
                assert_eq!(answer.body["violations"][0]["line"], lines + 1, "{}", answer.body);
            }
            (503, _) => return true,
            _ => panic!("{number}: {answer:?}"),
        }
        false
    };
    let busy = |caller| (0..SOURCES_EACH).filter(|number| is_busy(caller, *number)).count();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || busy(caller))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    })
}

#[test]
fn those_who_ask_at_the_same_time_are_told_what_is_theirs() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(ask_together(&supervisor, &AtomicUsize::new(0)), 0);
    // The same while analyzers are killed from outside, which says nothing about a source.
    let answered = AtomicUsize::new(0);
    let busy = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            for more in (10..CALLERS * SOURCES_EACH - 50).step_by(20) {
                wait_for("answers", || (answered.load(Ordering::Relaxed) >= more).then_some(()));
                for analyzer in children(supervisor.pid()).iter().filter(|child| child.kind() == "analyzer") {
                    // It may have ended by itself.
                    let _ = kill(Pid::from_raw(analyzer.pid), Signal::SIGKILL);
                }
            }
        });
        let busy = ask_together(&supervisor, &answered);
        killer.join().unwrap();
        busy
    });
    // Only who was with two that were killed.
    assert!(busy < 20, "{busy} had to be told to come again");
}

#[test]
fn a_long_source_is_read_in_time_whatever_fills_it() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let numbered =
        |text: &str, count: usize| (0..count).map(|n| text.replace('N', &n.to_string())).collect::<String>();
    let sources = [
        "1,".repeat(100_000) + "1",
        "f();".repeat(60_000),
        numbered("unknownN;", 20_000),
        numbered("let vN = N;", 12_000),
        format!("let v0 = Echo();{}", numbered("var w = v0;", 20_000)),
        format!("const a = [];{}", "a.push(Echo());".repeat(15_000)),
        "Echo().a;".repeat(25_000),
        "const r = Echo(); r.a; await r;".replace("const r", "var r").repeat(7_000),
        "eval('1');".repeat(20_000),
        "import('a');".repeat(20_000),
        format!("'{}'", "import(".repeat(30_000)),
        "/* eval( */".repeat(20_000),
        "n-->0;".repeat(40_000),
        "a<".repeat(400) + "a;" + &"a<b,".repeat(50_000) + "1",
        "```js\n1\n```\ntext\n".repeat(10_000),
        "```js\n".repeat(20_000),
        format!("({}) => 1", numbered("aN,", 30_000)),
        "let = ;".repeat(30_000),
        "export const a = 1;".repeat(10_000),
        "\u{2028}".repeat(80_000),
        "\u{1f600}".repeat(60_000),
        "\"".repeat(250_000),
        "<!--".repeat(60_000),
    ];
    for source in sources {
        assert!(source.len() <= 256 * 1024, "{}: {}", &source[..20], source.len());
        let body = json!({ "environmentName": "test", "userAgentId": "agent", "code": source });
        let started = Instant::now();
        let answer = supervisor.post("/api/analyze", &body);
        assert!([200, 400, 422].contains(&answer.status), "{}: {answer:?}", &source[..20]);
        for list in ["violations", "warnings"] {
            assert!(answer.body[list].as_array().is_none_or(|list| list.len() <= 20), "{}", &source[..20]);
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{}: {:?}", &source[..20], started.elapsed());
    }
}

/// A sequence that is the same for the same seed (splitmix64), so that a failure can be repeated.
fn numbers(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }
}

/// A program with pieces cut out, doubled, moved, and put in.
fn mutated(code: &str, others: &[(String, String)], pick: &mut impl FnMut(usize) -> usize) -> String {
    const PIECES: [&str; 40] = [
        "await ",
        "return ",
        "async ",
        "=>",
        "${",
        "`",
        "```",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "...",
        "?.",
        "??",
        "-->",
        "<!--",
        "import(",
        "eval(",
        "/",
        "//",
        "/*",
        "*/",
        "'",
        "\"",
        "\\",
        "\n",
        "\u{2028}",
        ";",
        ",",
        "<T>",
        " as any",
        ": string",
        "export default ",
        "class A ",
        "ListUsers()",
        "GetUser",
        ".then(",
        "\u{1f600}",
    ];
    let boundary = |text: &str, at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let mut text = code.to_owned();
    for _ in 0..=pick(2) {
        let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        // Whole lines half of the time, so that much of it still is a program.
        let (start, end) = match lines.as_slice() {
            [_, .., last] if pick(2) == 0 => {
                let line = pick(lines.len() - 1);
                (lines[line], lines[line + 1].min(*last))
            }
            _ => {
                let start = boundary(&text, pick(text.len() + 1));
                (start, boundary(&text, (start + pick(30)).min(text.len())).max(start))
            }
        };
        match pick(4) {
            0 => text.replace_range(start..end, ""),
            1 => text.insert_str(start, PIECES[pick(PIECES.len())]),
            2 => {
                let copy = text[start..end].to_owned();
                text.insert_str(start, &copy);
            }
            _ => {
                let other = &others[pick(others.len())].1;
                let from = boundary(other, pick(other.len()));
                let to = boundary(other, (from + 80).min(other.len()));
                text.insert_str(start, &other[from..to]);
            }
        }
    }
    text
}

#[test]
fn whatever_is_sent_is_answered_and_what_is_accepted_is_javascript() {
    let supervisor = shop();
    let programs = programs();
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1500);
    let mut pick = numbers(seed);
    let mut accepted = 0;
    for round in 0..rounds {
        let code = mutated(&programs[round % programs.len()].1, &programs, &mut pick);
        let (status, answer) = execute(&supervisor, "shop", &code);
        assert!([200, 400, 413, 422].contains(&status), "seed {seed}, round {round}: {answer}\n{code}");
        if status == 200 {
            accepted += 1;
            let name = answer["errorDetails"]["name"].as_str().unwrap_or_default();
            assert_ne!(name, "SyntaxError", "seed {seed}, round {round}: {answer}\n{code}");
            assert_ne!(answer["status"], "worker_lost", "seed {seed}, round {round}: {answer}\n{code}");
        }
    }
    assert!(accepted > rounds / 10 && accepted < rounds, "{accepted} of {rounds} were accepted");
}
