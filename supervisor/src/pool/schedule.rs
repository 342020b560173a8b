//! Who gets which process, and what is started next, for one kind of process.
//!
//! ```text
//!            ┌── kept for its binding ──────────────┐
//!  request ──┼── spare of its source ───────────────┼──► given out ──► given back ──► a waiter of the
//!            └── waits ─► a start ends, or one of ──┘                                 binding, else kept
//!                         its binding comes back
//! ```
//!
//! A spare was made for a source and has served nobody; whoever it serves first, it is bound to from then
//! on. Who waits is served in turn: of several groups (environments) that wait for the same source, the
//! one that was served longest ago. Starts are for those who wait first, then for spares, and for whatever
//! has the fewest under way, so that a herd of one kind does not hold up the others.
//!
//! Pure: no clock, no process. The caller starts what `next_start` names, and bounds how many at once.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Instant;

use super::kept::Kept;

/// Somebody who waits; `reply` is the caller's.
pub struct Waiter<S, B, G, W> {
    pub source: S,
    /// Without one, only a spare will do.
    pub binding: Option<B>,
    pub group: G,
    pub reply: W,
}

/// `S`: what a spare is made for; `B`: whom a used one is kept for; `G`: who shares a turn; `U`: an unused
/// process, `P`: a used one; `W`: where a waiter is told.
pub struct Schedule<S, B, G, U, P, W> {
    pub spares: Kept<S, U>,
    pub bound: Kept<B, P>,
    /// How many spares there should be.
    targets: BTreeMap<S, usize>,
    starting: HashMap<S, usize>,
    /// In the order in which they came.
    waiting: Vec<Waiter<S, B, G, W>>,
    /// When groups that wait were last served.
    served: HashMap<G, u64>,
    deliveries: u64,
}

impl<S, B, G, U, P, W> Default for Schedule<S, B, G, U, P, W> {
    fn default() -> Self {
        Schedule {
            spares: Kept::default(),
            bound: Kept::default(),
            targets: BTreeMap::new(),
            starting: HashMap::new(),
            waiting: Vec::new(),
            served: HashMap::new(),
            deliveries: 0,
        }
    }
}

impl<S, B, G, U, P, W> Schedule<S, B, G, U, P, W>
where
    S: Clone + Eq + Hash + Ord,
    B: Clone + Eq + Hash,
    G: Clone + Eq + Hash,
{
    /// Sets how many spares of a source there should be; none are started any more for 0.
    pub fn set_target(&mut self, source: S, spares: usize) {
        match spares {
            0 => drop(self.targets.remove(&source)),
            _ => drop(self.targets.insert(source, spares)),
        }
    }

    /// Sets no more targets for sources that `wanted` does not name.
    pub fn retain_targets(&mut self, wanted: impl Fn(&S) -> bool) {
        self.targets.retain(|source, _| wanted(source));
    }

    pub fn wait(&mut self, waiter: Waiter<S, B, G, W>) {
        self.waiting.push(waiter);
    }

    /// Forgets waiters that have given up.
    pub fn forget(&mut self, gave_up: impl Fn(&W) -> bool) {
        self.waiting.retain(|waiter| !gave_up(&waiter.reply));
        self.served.retain(|group, _| self.waiting.iter().any(|waiter| waiter.group == *group));
    }

    /// How many starts are under way.
    pub fn starting(&self) -> usize {
        self.starting.values().sum()
    }

    /// What to start next, which counts as under way from now on; for waiters only, or also for spares.
    pub fn next_start(&mut self, for_waiters: bool) -> Option<S> {
        let lacking = if for_waiters { self.awaited() } else { self.lacking() };
        // The first of those that have the fewest under way.
        let source = lacking.into_iter().min_by_key(|source| self.starting.get(source).copied())?;
        *self.starting.entry(source.clone()).or_default() += 1;
        Some(source)
    }

    /// A start has ended, whatever came of it.
    pub fn start_ended(&mut self, source: &S) {
        if let Some(count) = self.starting.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                self.starting.remove(source);
            }
        }
    }

    /// Who gets an unused process of the source, or hears that its start failed.
    pub fn next_of_source(&mut self, source: &S) -> Option<W> {
        self.next_waiter(|waiter| waiter.source == *source)
    }

    /// Who gets a used process of the binding.
    pub fn next_of_binding(&mut self, binding: &B) -> Option<W> {
        self.next_waiter(|waiter| waiter.binding.as_ref() == Some(binding))
    }

    /// Keeps an unused process, unless there are as many as there should be.
    pub fn keep_spare(&mut self, source: S, unused: U, bytes: u64, now: Instant) -> Result<(), U> {
        let target = self.targets.get(&source).copied().unwrap_or(0);
        if self.spares.count(&source) >= target {
            return Err(unused);
        }
        self.spares.put(source, unused, bytes, now);
        Ok(())
    }

    /// Sources that more wait for than are started, in the order of their first waiter.
    fn awaited(&self) -> Vec<S> {
        let mut sources: Vec<(&S, usize)> = Vec::new();
        for waiter in &self.waiting {
            match sources.iter_mut().find(|(source, _)| *source == &waiter.source) {
                Some((_, count)) => *count += 1,
                None => sources.push((&waiter.source, 1)),
            }
        }
        let under_way = |source: &S| self.starting.get(source).copied().unwrap_or(0);
        let more = sources.into_iter().filter(|(source, count)| *count > under_way(source));
        more.map(|(source, _)| source.clone()).collect()
    }

    /// Sources with fewer spares, there and under way, than there should be.
    fn lacking(&self) -> Vec<S> {
        let coming = |source: &S| self.starting.get(source).copied().unwrap_or(0) + self.spares.count(source);
        let fewer = self.targets.iter().filter(|(source, target)| coming(source) < **target);
        fewer.map(|(source, _)| source.clone()).collect()
    }

    fn next_waiter(&mut self, wanted: impl Fn(&Waiter<S, B, G, W>) -> bool) -> Option<W> {
        let candidates = self.waiting.iter().enumerate().filter(|(_, waiter)| wanted(waiter));
        let (place, _) = candidates.min_by_key(|(_, waiter)| self.served.get(&waiter.group).copied())?;
        let waiter = self.waiting.remove(place);
        self.deliveries += 1;
        self.served.insert(waiter.group, self.deliveries);
        Some(waiter.reply)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sources and groups are numbers, a binding is a source and an agent, a process knows its own.
    type Tested = Schedule<u8, (u8, u8), u8, u32, (u32, (u8, u8)), u32>;

    fn waiter(source: u8, agent: u8, group: u8, reply: u32) -> Waiter<u8, (u8, u8), u8, u32> {
        Waiter { source, binding: Some((source, agent)), group, reply }
    }

    #[test]
    fn one_that_comes_back_serves_a_waiter_of_its_binding_and_nobody_else() {
        let mut schedule = Tested::default();
        schedule.wait(waiter(1, 7, 1, 100));
        schedule.wait(waiter(1, 8, 1, 101));
        assert_eq!(schedule.next_of_binding(&(1, 8)), Some(101));
        assert_eq!(schedule.next_of_binding(&(1, 8)), None);
        assert_eq!(schedule.next_of_source(&2), None);
        assert_eq!(schedule.next_of_source(&1), Some(100));
    }

    #[test]
    fn waiters_come_before_spares_and_no_more_is_started_than_is_lacking() {
        let mut schedule = Tested::default();
        schedule.set_target(1, 2);
        schedule.wait(waiter(2, 1, 1, 100));
        assert_eq!(schedule.next_start(true), Some(2));
        assert_eq!(schedule.next_start(true), None);
        assert_eq!([(); 3].map(|()| schedule.next_start(false)), [Some(1), Some(1), None]);
        schedule.start_ended(&1);
        assert_eq!(schedule.keep_spare(1, 9, 1, Instant::now()), Ok(()));
        assert_eq!((schedule.next_start(false), schedule.starting()), (None, 2));
    }

    #[test]
    fn a_herd_of_one_group_does_not_hold_up_another() {
        let mut schedule = Tested::default();
        for reply in 0..50 {
            schedule.wait(waiter(1, u8::try_from(reply).unwrap(), 1, reply));
        }
        schedule.wait(waiter(1, 200, 2, 99));
        let order: Vec<u32> = (0..4).filter_map(|_| schedule.next_of_source(&1)).collect();
        assert_eq!(order, [0, 99, 1, 2]);
    }

    #[test]
    fn a_herd_for_one_source_does_not_take_all_starts() {
        let mut schedule = Tested::default();
        for reply in 0..50 {
            schedule.wait(waiter(1, 0, 1, reply));
        }
        schedule.wait(waiter(2, 0, 2, 99));
        let starts: Vec<u8> = (0..3).filter_map(|_| schedule.next_start(true)).collect();
        assert_eq!(starts, [1, 2, 1]);
    }

    #[test]
    fn who_gave_up_is_not_started_for() {
        let mut schedule = Tested::default();
        schedule.wait(waiter(1, 0, 1, 100));
        schedule.forget(|reply| *reply == 100);
        assert_eq!(schedule.next_start(true), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request { source: u8, agent: u8, group: u8 },
        GiveBack,
        Start,
        StartEnds { works: bool },
        GiveUp,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let request = (0_u8..3, 0_u8..3, 0_u8..3).prop_map(|(source, agent, group)| Step::Request {
            source,
            agent,
            group,
        });
        let step = prop_oneof![
            3 => request,
            2 => Just(Step::GiveBack),
            3 => Just(Step::Start),
            3 => any::<bool>().prop_map(|works| Step::StartEnds { works }),
            1 => Just(Step::GiveUp),
        ];
        prop::collection::vec(step, 0..150)
    }

    /// A schedule and what the world around it knows.
    #[derive(Default)]
    struct World {
        schedule: Tested,
        /// Who waits, with the binding that they may be served with.
        waiting: HashMap<u32, (u8, u8)>,
        /// Processes that serve somebody.
        busy: Vec<(u32, (u8, u8))>,
        under_way: Vec<u8>,
        next: u32,
        made: usize,
    }

    const STARTS_MAX: usize = 3;

    impl World {
        fn request(&mut self, source: u8, agent: u8, group: u8) {
            let binding = (source, agent);
            if let Some(process) = self.schedule.bound.take(&binding, |_| true) {
                assert_eq!(process.1, binding, "a used process serves its own binding only");
                self.busy.push(process);
            } else if let Some(unused) = self.schedule.spares.take(&source, |_| true) {
                self.busy.push((unused, binding));
            } else {
                self.next += 1;
                self.waiting.insert(self.next, binding);
                self.schedule.wait(waiter(source, agent, group, self.next));
            }
        }

        fn serve(&mut self, reply: u32, process: (u32, Option<(u8, u8)>)) {
            let binding = self.waiting.remove(&reply).expect("somebody who waits is served, and once");
            assert!(process.1.is_none_or(|own| own == binding), "a used process serves its own binding only");
            self.busy.push((process.0, binding));
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Request { source, agent, group } => self.request(source, agent, group),
                Step::GiveBack => {
                    let Some(process) = self.busy.pop() else { return };
                    match self.schedule.next_of_binding(&process.1) {
                        Some(reply) => self.serve(reply, (process.0, Some(process.1))),
                        None => self.schedule.bound.put(process.1, process, 1, Instant::now()),
                    }
                }
                Step::Start => self.start(),
                Step::StartEnds { works } => {
                    let Some(source) = self.under_way.pop() else { return };
                    self.schedule.start_ended(&source);
                    self.start_ended(source, works);
                }
                Step::GiveUp => {
                    if let Some(reply) = self.waiting.keys().next().copied() {
                        self.waiting.remove(&reply);
                        self.schedule.forget(|waiting| *waiting == reply);
                    }
                }
            }
        }

        fn start(&mut self) {
            while self.schedule.starting() < STARTS_MAX {
                let next = self.schedule.next_start(true).or_else(|| self.schedule.next_start(false));
                let Some(source) = next else { break };
                self.under_way.push(source);
            }
        }

        fn start_ended(&mut self, source: u8, works: bool) {
            if !works {
                if let Some(reply) = self.schedule.next_of_source(&source) {
                    assert!(self.waiting.remove(&reply).is_some());
                }
                return;
            }
            self.next += 1;
            self.made += 1;
            match self.schedule.next_of_source(&source) {
                Some(reply) => self.serve(reply, (self.next, None)),
                None if self.schedule.keep_spare(source, self.next, 1, Instant::now()).is_err() => {
                    self.made -= 1
                }
                None => {}
            }
        }
    }

    proptest! {
        #[test]
        fn no_process_is_lost_nobody_waits_in_vain_and_starts_are_bounded(steps in steps(), target in 0_usize..3) {
            let mut world = World::default();
            world.schedule.set_target(0, target);
            for step in steps {
                world.step(step);
                let kept = world.schedule.spares.total() + world.schedule.bound.total();
                prop_assert_eq!(kept + world.busy.len(), world.made, "every process is busy or kept");
                prop_assert!(world.schedule.starting() <= STARTS_MAX);
                prop_assert_eq!(world.schedule.starting(), world.under_way.len());
                prop_assert!(world.schedule.spares.count(&0) <= target);
            }
            // Whoever still waits is served by starts alone.
            for _ in 0..500 {
                world.start();
                let Some(source) = world.under_way.pop() else { break };
                world.schedule.start_ended(&source);
                world.start_ended(source, true);
            }
            prop_assert!(world.waiting.is_empty());
            prop_assert_eq!(world.schedule.starting(), 0);
            prop_assert_eq!(world.schedule.spares.count(&0), target);
        }
    }
}
