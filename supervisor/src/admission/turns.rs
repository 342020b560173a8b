//! Who may enter, and whose turn is next. Pure: no clock, no task, no channel.
//!
//! ```text
//!  enter ──► preparing ──wait──► waiting ──next──► running ──► leave
//!                                   └──(evicted by one that is worth more)──► gone
//! ```
//!
//! A higher priority goes first. Within a priority the turn goes to whoever has the fewest running,
//! then to whoever came first. Every `OLDEST_EACH`-th turn goes to the one that came first of all, so
//! that a stream of high priority delays the low one and does not starve it.
//! Nobody holds more than half of the places (or one that waits beside all that may run). When all are taken, a newcomer takes the place of one that
//! waits: of somebody who holds at least two places more, or of a lower priority and of nobody who holds
//! fewer. So no priority keeps a modest caller out.

use std::collections::HashMap;
use std::hash::Hash;

/// How often the oldest waits no longer, whatever its priority.
const OLDEST_EACH: u64 = 8;

/// How much a caller is in a hurry, in falling order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Waiting,
    Running,
}

struct Place<K> {
    owner: K,
    priority: Priority,
    stage: Stage,
}

/// The places of one supervisor. An id is its order of arrival.
pub struct Turns<K> {
    places: HashMap<u64, Place<K>>,
    places_max: usize,
    running_max: usize,
    last_id: u64,
    turns: u64,
}

/// A place, and whose it was when somebody had to make room.
pub struct Entered {
    pub id: u64,
    pub evicted: Option<u64>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    pub fn new(running_max: usize, waiting_max: usize) -> Turns<K> {
        Turns {
            places: HashMap::new(),
            places_max: running_max + waiting_max,
            running_max,
            last_id: 0,
            turns: 0,
        }
    }

    /// A place, or nothing when all are taken by those who are worth as much.
    pub fn enter(&mut self, owner: K, priority: Priority) -> Option<Entered> {
        if self.held_by(&owner) >= self.places_max.div_ceil(2).max(self.running_max + 1) {
            return None;
        }
        let evicted = match self.places.len() < self.places_max {
            true => None,
            false => Some(self.worth_less(&owner, priority)?),
        };
        if let Some(id) = evicted {
            self.places.remove(&id);
        }
        self.last_id += 1;
        self.places.insert(self.last_id, Place { owner, priority, stage: Stage::Preparing });
        Some(Entered { id: self.last_id, evicted })
    }

    /// From now on the place waits for its turn.
    pub fn wait(&mut self, id: u64) {
        if let Some(place) = self.places.get_mut(&id) {
            place.stage = Stage::Waiting;
        }
    }

    /// Whose turn it is now, if one is free and somebody waits. Called until it gives nobody.
    pub fn next(&mut self) -> Option<u64> {
        if self.count(Stage::Running) >= self.running_max {
            return None;
        }
        let oldest_wins = (self.turns + 1).is_multiple_of(OLDEST_EACH);
        let running = self.running_by_owner();
        let rank = |id: u64, place: &Place<K>| match oldest_wins {
            true => (Priority::High, 0, id),
            false => (place.priority, running.get(&place.owner).copied().unwrap_or(0), id),
        };
        let waiting = self.places.iter().filter(|(_, place)| place.stage == Stage::Waiting);
        let chosen = waiting.map(|(id, place)| rank(*id, place)).min()?.2;
        self.turns += 1;
        if let Some(place) = self.places.get_mut(&chosen) {
            place.stage = Stage::Running;
        }
        Some(chosen)
    }

    /// Gives a place up; one that was evicted before is not there any more.
    pub fn leave(&mut self, id: u64) {
        self.places.remove(&id);
    }

    /// The waiting place that gives way to the newcomer, if there is one.
    fn worth_less(&self, owner: &K, priority: Priority) -> Option<u64> {
        let own = self.held_by(owner);
        let waiting = self.places.iter().filter(|(_, place)| place.stage == Stage::Waiting);
        let ranked = waiting.map(|(id, place)| (self.held_by(&place.owner), place.priority, *id));
        let gives_way = |(held, given, _): &(usize, Priority, u64)| {
            *held >= own + 2 || (*given > priority && *held >= own)
        };
        ranked.filter(gives_way).max().map(|(_, _, id)| id)
    }

    fn held_by(&self, owner: &K) -> usize {
        self.places.values().filter(|place| place.owner == *owner).count()
    }

    fn count(&self, stage: Stage) -> usize {
        self.places.values().filter(|place| place.stage == stage).count()
    }

    fn running_by_owner(&self) -> HashMap<K, usize> {
        let mut running = HashMap::new();
        for place in self.places.values().filter(|place| place.stage == Stage::Running) {
            *running.entry(place.owner.clone()).or_default() += 1;
        }
        running
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(turns: &mut Turns<char>, owner: char, priority: Priority) -> u64 {
        let id = turns.enter(owner, priority).unwrap().id;
        turns.wait(id);
        id
    }

    #[test]
    fn a_higher_priority_goes_first_and_nobody_starves() {
        let mut turns = Turns::new(1, 100);
        let low = waiting(&mut turns, 'l', Priority::Low);
        let mut served_low_after = None;
        for turn in 0..OLDEST_EACH {
            let high = waiting(&mut turns, 'h', Priority::High);
            let id = turns.next().unwrap();
            assert!(id == high || id == low || turn > 0);
            if id == low {
                served_low_after = Some(turn);
            }
            assert!(turns.next().is_none(), "one runs at a time");
            turns.leave(id);
        }
        assert_eq!(served_low_after, Some(OLDEST_EACH - 1));
    }

    #[test]
    fn the_turn_goes_to_whoever_has_the_fewest_running() {
        let mut turns = Turns::new(3, 10);
        let greedy: Vec<u64> = (0..3).map(|_| waiting(&mut turns, 'g', Priority::Normal)).collect();
        let modest = waiting(&mut turns, 'm', Priority::Normal);
        let order: Vec<u64> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(order, [greedy[0], modest, greedy[1]]);
    }

    #[test]
    fn a_full_house_makes_room_for_what_is_worth_more_only() {
        let mut turns = Turns::new(1, 5);
        let first = waiting(&mut turns, 'a', Priority::Normal);
        assert_eq!(turns.next(), Some(first));
        let second = waiting(&mut turns, 'a', Priority::Normal);
        let third = waiting(&mut turns, 'a', Priority::Normal);
        assert!(turns.enter('a', Priority::High).is_none(), "nobody holds more than half");
        let low = waiting(&mut turns, 'b', Priority::Low);
        waiting(&mut turns, 'b', Priority::High);
        waiting(&mut turns, 'c', Priority::High);
        assert_eq!(turns.enter('d', Priority::Low).unwrap().evicted, Some(third), "of who holds most");
        assert_eq!(turns.enter('c', Priority::Normal).unwrap().evicted, Some(low), "of a lower priority");
        assert!(turns.enter('c', Priority::Low).is_none());
        assert_eq!(turns.enter('e', Priority::Low).unwrap().evicted, Some(second));
    }

    proptest! {
        #[test]
        fn places_and_turns_are_never_exceeded_and_all_who_wait_are_served(
            steps in prop::collection::vec((0_u8..4, 0_u8..5, 0_u8..3), 0..300),
            running_max in 1_usize..4,
            waiting_max in 0_usize..5,
        ) {
            let mut turns = Turns::new(running_max, waiting_max);
            let (mut preparing, mut expecting, mut running) = (Vec::new(), Vec::new(), Vec::new());
            for (act, owner, priority) in steps {
                match act {
                    0 => {
                        let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                        if let Some(Entered { id, evicted }) = turns.enter(owner, priority) {
                            preparing.push(id);
                            if let Some(evicted) = evicted {
                                prop_assert!(expecting.contains(&evicted));
                                expecting.retain(|id| *id != evicted);
                            }
                        }
                    }
                    1 => if let Some(id) = preparing.pop() { turns.wait(id); expecting.push(id); },
                    2 => if let Some(id) = turns.next() {
                        prop_assert!(expecting.contains(&id));
                        expecting.retain(|waiting| *waiting != id);
                        running.push(id);
                    },
                    _ => if !running.is_empty() { turns.leave(running.remove(0)); },
                }
                prop_assert!(running.len() <= running_max);
                prop_assert_eq!(turns.places.len(), preparing.len() + expecting.len() + running.len());
                prop_assert!(turns.places.len() <= running_max + waiting_max);
            }
            for id in running { turns.leave(id); }
            for _ in 0..expecting.len() {
                let id = turns.next();
                prop_assert!(id.is_some_and(|id| expecting.contains(&id)));
                turns.leave(id.unwrap());
            }
            prop_assert_eq!(turns.next(), None);
        }

        #[test]
        fn who_holds_nothing_gets_in_where_somebody_waits_twice(
            owners in prop::collection::vec((0_u8..3, 0_u8..3), 0..40),
            newcomer in 0_u8..3,
        ) {
            let priorities = [Priority::High, Priority::Normal, Priority::Low];
            let mut turns = Turns::new(1, 7);
            for (owner, priority) in owners {
                if let Some(Entered { id, .. }) = turns.enter(owner, priorities[usize::from(priority)]) {
                    turns.wait(id);
                }
            }
            let modest = turns.enter(9, priorities[usize::from(newcomer)]);
            prop_assert!(modest.is_some(), "three callers have eight places, so one waits more than once");
        }
    }
}
