//! What the parts of the hot path cost by themselves: `cargo bench -p supervisor`.
#![expect(clippy::unwrap_used, reason = "a bench that fails has to stop")]

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use supervisor::parts::{Connection, EffectState, FromGuest, Kept, Ledger, Schedule, ToGuest, Waiter};
use tokio::net::UnixStream;

const FRAME_BYTES_MAX: usize = 1 << 20;

fn frame(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut ours, mut theirs) = runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = Connection::<FromGuest, ToGuest>::new(ours, FRAME_BYTES_MAX, FRAME_BYTES_MAX).unwrap();
        let theirs = Connection::<ToGuest, FromGuest>::new(theirs, FRAME_BYTES_MAX, FRAME_BYTES_MAX).unwrap();
        (ours, theirs)
    });
    for (name, bytes) in [("frame: a call of 100 bytes", 100), ("frame: a call of 100 KB", 100_000)] {
        let params = serde_json::value::to_raw_value(&"x".repeat(bytes)).unwrap();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let call = FromGuest::Call {
                    execution_id: "exec_01m7yyan9zer48mce00xvvj5a4".to_owned(),
                    call_id: 1,
                    name: "GetRates".to_owned(),
                    params: params.clone(),
                };
                runtime.block_on(async {
                    let (sent, received) = tokio::join!(theirs.send(&call), ours.receive());
                    sent.unwrap();
                    received.unwrap()
                })
            });
        });
    }
}

fn ledger(criterion: &mut Criterion) {
    criterion.bench_function("ledger: fifty calls entered and answered", |bencher| {
        bencher.iter(|| {
            let mut ledger = Ledger::default();
            let now = Instant::now();
            for call_id in 0..50 {
                ledger.begin(call_id, "GetRates".to_owned(), now);
            }
            for call_id in 0..50 {
                assert!(ledger.end(call_id, EffectState::Returned, now));
            }
            ledger.into_effects()
        });
    });
}

fn pool(criterion: &mut Criterion) {
    for bindings in [1_u32, 1_000] {
        let mut kept = Kept::default();
        let now = Instant::now();
        for binding in 0..bindings {
            kept.put(binding, binding, 1, now);
        }
        criterion.bench_function(&format!("pool: taken and given back among {bindings}"), |bencher| {
            bencher.iter(|| {
                let taken = kept.take(&0, |_| true).unwrap();
                kept.put(taken, taken, 1, now);
            });
        });
    }
    criterion.bench_function("pool: a hundred wait for one source and are served", |bencher| {
        bencher.iter(|| {
            let mut schedule = Schedule::<u32, u32, u32, (), (), u32>::default();
            for reply in 0..100 {
                schedule.wait(Waiter { source: 1, binding: Some(reply), group: reply % 10, reply });
            }
            while let Some(source) = schedule.next_start(true) {
                schedule.start_ended(&source);
                assert!(schedule.next_of_source(&source).is_some());
            }
        });
    });
}

criterion_group!(parts, frame, ledger, pool);
criterion_main!(parts);
