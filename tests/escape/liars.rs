//! Guests and hosts that send what no whole harness sends: to the wrong turn, twice, for others, never,
//! or at random.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{Supervisor, children, processor_ticks, wait_for};

#[test]
fn an_owned_guest_that_lies_loses_its_own_execution_only() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    let call =
        "const call = (callId, name, params) => frame({ call: { executionId, callId, name, params } });";
    let stay = "await new Promise(() => {})";
    let lies = [
        "raw('garbage that is no frame');".to_owned(),
        "raw([255, 255, 255, 255]);".to_owned(),
        "frame({ ready: {} });".to_owned(),
        "frame({ idle: { executionId } });".to_owned(),
        "frame({ completed: { value: 1 } });".to_owned(),
        "frame({ completed: { executionId: 'exec_other', value: 'forged' } });".to_owned(),
        "frame({ completed: { executionId, value: 'x'.repeat(1024 * 1024) } });".to_owned(),
        "for (let i = 0; i < 200; i += 1) frame({ log: { executionId, level: 'log', text: 'x' } });"
            .to_owned(),
        "frame({ log: { executionId, level: 'log', text: 'x'.repeat(10000) } });".to_owned(),
        format!("{call} call(1, 'Wait', {{ ms: 50 }}); call(1, 'Wait', {{ ms: 50 }});"),
        "for (let i = 0; i < 9; i += 1) frame({ wait: { executionId, ms: 1000 } });".to_owned(),
        "frame({ wait: { executionId, ms: -1 } });".to_owned(),
        "node('fs').closeSync(3);".to_owned(),
        format!("{call} for (let i = 0; i < 200; i += 1) call(i, 'NoSuchFunction', {{}});"),
    ];
    for lie in lies {
        let execution = supervisor.execute(&format!("{lie} {stay}"));
        assert_eq!(execution["status"], "worker_lost", "{lie}: {execution}");
        assert_eq!(supervisor.execute_for("other", "return 7")["result"], 7);
    }
    let refused = supervisor.execute(&format!("{call} call(1, 'NoSuchFunction', {{}}); while (!received.length) await new Promise((go) => setTimeout(go, 1)); return received[0].throw.error.code"));
    assert_eq!(
        (&refused["result"], &refused["effects"][0]["state"]),
        (&json!("api_not_provisioned"), &json!("refused"))
    );
}

#[test]
fn an_owned_guest_cannot_prepare_the_next_execution_s_result() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    let prepare = "setImmediate(() => setImmediate(() => frame({ completed: { executionId, value: 'forged' } }))); return 'first'";
    assert_eq!(supervisor.result(prepare), "first");
    let next = supervisor.execute("return 'second'");
    assert_ne!(next["result"], "forged", "{next}");
}

/// It learns of an execution before its turn, and with it the id that a result needs.
#[test]
fn an_owned_guest_is_not_believed_before_it_is_told_that_a_program_runs() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    // The analyzer answers nothing until the guest was told, has said its word, and computes.
    let forge = "received.push = ({ announce }) => { if (announce) { frame({ completed: { executionId: announce.executionId, value: 'forged' } }); for (;;); } }; return 'first'";
    assert_eq!(supervisor.result(forge), "first");
    let children = children(supervisor.pid());
    let analyzer = children.iter().find(|child| child.status("Name") == "analyzer").unwrap();
    let analyzer = Pid::from_raw(analyzer.pid);
    let guests = || children.iter().filter(|child| child.kind() == "guest");
    let ticks = || guests().filter_map(|guest| processor_ticks(guest.pid)).sum::<u64>();
    let idle = ticks();
    kill(analyzer, Signal::SIGSTOP).unwrap();
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| supervisor.execute("return 'second'"));
        wait_for("a guest that computes", || (ticks() > idle + 5).then_some(()));
        kill(analyzer, Signal::SIGCONT).unwrap();
        next.join().unwrap()
    });
    assert_eq!(next["result"], "second", "{next}");
}

/// A sequence that is the same for the same seed (xorshift), so that a failure can be repeated.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn an_owned_guest_that_sends_anything_harms_nobody() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    let pieces = [
        "frame({ ready: {} })",
        "frame({ idle: { executionId } })",
        "frame({ log: { executionId, level: 'log', text: 'x' } })",
        "frame({ log: { executionId, level: 'other', text: 7 } })",
        "frame({ call: { executionId, callId: N, name: 'Echo', params: N } })",
        "frame({ call: { executionId, callId: N, name: 'Wait', params: { ms: N } } })",
        "frame({ call: { executionId: 'exec_other', callId: N, name: 'Echo', params: {} } })",
        "frame({ call: { executionId, callId: -N, name: 'Echo' } })",
        "frame({ completed: { executionId, value: N } })",
        "frame({ completed: { executionId, value: N } }); frame({ completed: { executionId, value: 'second' } })",
        "frame({ threw: { executionId, error: { name: 'E', message: 'm'.repeat(N) } } })",
        "frame([N])",
        "frame({ wait: { executionId, ms: N } })",
        "frame({ wait: { executionId: 'exec_other', ms: N } })",
        "frame({ returned: { callId: N, value: N } })",
        "raw([0, 0, 0, N])",
        "raw([N, N, N, N])",
        "raw('{\"ready\":{}}')",
        "await new Promise((go) => setTimeout(go, 1))",
    ];
    for seed in 0..60 {
        let mut next = numbers(seed + 1);
        let length = 1 + next(12);
        let program: String = (0..length)
            .map(|_| {
                let piece = pieces[usize::try_from(next(pieces.len() as u64)).unwrap()];
                format!("{};\n", piece.replace('N', &next(20).to_string()))
            })
            .collect();
        let body = json!({ "environmentName": "test", "userAgentId": "liar", "code": format!("{program} return 'done'"), "timeout": 2000 });
        let answer = supervisor.post("/api/execute", &body);
        assert_eq!(answer.status, 200, "seed {seed}: {answer:?}");
        let honest = supervisor.execute_for("honest", "return 7");
        assert_eq!(honest["result"], 7, "after seed {seed}: {honest}");
    }
    assert_eq!(supervisor.records().len(), 120);
}

#[test]
fn a_host_that_answers_out_of_turn_twice_for_others_or_never_loses_its_own_execution_only() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let out_of_turn = [
        json!([{ "loaded": {} }]),
        json!([{ "initialized": {} }]),
        json!([{ "deinitialized": {} }]),
        json!([{ "ready": {} }]),
        json!([{ "returned": { "callId": 99, "value": 1 } }]),
        json!([{ "threw": { "callId": null, "error": { "name": "E", "message": "m" } } }]),
        json!([{ "returned": { "callId": 1, "value": 1, "more": 2 } }]),
        json!([{ "exit": {} }]),
    ];
    for messages in out_of_turn {
        let execution =
            supervisor.execute(&format!("await Frames({{ messages: {messages} }}); return 'answered'"));
        assert_eq!(
            (&execution["status"], &execution["errorDetails"]["code"]),
            (&json!("worker_lost"), &json!("protocol_violation")),
            "{messages}: {execution}"
        );
        assert_eq!(supervisor.result("return await Echo(1)"), 1);
    }
    // Twice: the second answer comes when the first has been taken, and belongs to no call.
    let twice = supervisor.execute("const first = await Frames({ messages: [{ returned: { callId: 1, value: 'forged' } }] }); await Wait({ ms: 300 }); return first");
    assert_eq!(twice["errorDetails"]["code"], "protocol_violation", "{twice}");
    // For another execution: its own agent's next one is not given what was sent for an earlier one.
    let left = supervisor
        .execute("return await Frames({ messages: [{ returned: { callId: 1, value: 'forged' } }] })");
    // A host may answer its own call as it likes; the harness's answer is one too many, if it is still heard.
    let heard = left["errorDetails"]["code"] == "protocol_violation";
    assert!(left["result"] == "forged" || heard, "{left}");
    // Or only when its own agent's next one has begun, which ends that.
    let next = supervisor.execute("return await Echo('own')");
    let heard = next["errorDetails"]["code"] == "protocol_violation";
    assert!(next["result"] == "own" || heard, "{next}");
    assert_eq!(supervisor.result("return await Echo('own')"), "own", "it is heard once at most");
    assert_eq!(supervisor.execute_for("other", "return await Echo('own')")["result"], "own");
    // Never.
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": "await Wait({ ms: 60000 })", "timeout": 500 });
    assert_eq!(supervisor.post("/api/execute", &body).body["status"], "timeout");
    // A flood of log entries is read and dropped, and the answer still arrives.
    let flood = json!({ "log": { "level": "log", "text": "x".repeat(100) } });
    let code = format!("return await Frames({{ messages: Array(400).fill({flood}) }})");
    assert_eq!(supervisor.result(&code), 400);
}
