//! Idle things that are kept for a key: bounded, and least recently used first to go.
//!
//! Pure: the caller brings the clock, and ends what comes back.

use std::time::Instant;

pub struct Idle<K, V> {
    /// In the order of their last use.
    entries: Vec<(K, Instant, V)>,
    entries_max: usize,
}

impl<K: PartialEq, V> Idle<K, V> {
    pub fn new(entries_max: usize) -> Idle<K, V> {
        Idle { entries: Vec::new(), entries_max }
    }

    /// The most recently used value of the key that is still `usable`; the others of it are dropped.
    pub fn take(&mut self, key: &K, usable: impl Fn(&V) -> bool) -> Option<V> {
        self.entries.retain(|(kept, _, value)| kept != key || usable(value));
        let place = self.entries.iter().rposition(|(kept, _, _)| kept == key)?;
        Some(self.entries.remove(place).2)
    }

    /// Keeps a value, and gives back those for which there is no room.
    pub fn put(&mut self, key: K, value: V, now: Instant) -> Vec<V> {
        self.entries.push((key, now, value));
        let excess = self.entries.len().saturating_sub(self.entries_max);
        self.entries.drain(..excess).map(|(_, _, value)| value).collect()
    }

    pub fn holds(&self, key: &K) -> bool {
        self.entries.iter().any(|(kept, _, _)| kept == key)
    }

    /// Gives back what was last used before `before`.
    pub fn expire(&mut self, before: Instant) -> Vec<V> {
        let end = self.entries.partition_point(|(_, used, _)| *used < before);
        self.entries.drain(..end).map(|(_, _, value)| value).collect()
    }

    /// Gives back what is kept for the keys that `chosen` names.
    pub fn remove(&mut self, chosen: impl Fn(&K) -> bool) -> Vec<V> {
        self.entries.extract_if(.., |(key, _, _)| chosen(key)).map(|(_, _, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let now = Instant::now();
        let mut idle = Idle::new(2);
        assert!(idle.put('a', 1, now).is_empty());
        assert!(idle.put('b', 2, now).is_empty());
        assert_eq!(idle.put('c', 3, now), [1]);
        assert_eq!(idle.take(&'b', |_| true), Some(2));
        assert_eq!(idle.take(&'b', |_| true), None);
        assert!(idle.holds(&'c'));
    }

    #[test]
    fn what_is_not_usable_is_not_given_out() {
        let mut idle = Idle::new(3);
        for value in 1..=3 {
            idle.put('a', value, Instant::now());
        }
        assert_eq!(idle.take(&'a', |value| *value == 1), Some(1));
        assert!(!idle.holds(&'a'));
    }

    #[test]
    fn time_and_choice_take_values_out() {
        let start = Instant::now();
        let mut idle = Idle::new(9);
        for second in 0..4 {
            idle.put(second, second, start + Duration::from_secs(second));
        }
        assert_eq!(idle.expire(start + Duration::from_secs(2)), [0, 1]);
        assert_eq!(idle.remove(|key| *key == 3), [3]);
        assert!(idle.holds(&2));
    }

    proptest! {
        #[test]
        fn a_value_only_ever_goes_to_its_own_key_and_once(steps in prop::collection::vec((0_u8..4, any::<bool>()), 0..200), room in 0_usize..6) {
            let mut idle = Idle::new(room);
            let mut out = std::collections::HashSet::new();
            for (number, (key, put)) in steps.into_iter().enumerate() {
                if put {
                    for (_, number) in idle.put(key, (key, number), Instant::now()) {
                        prop_assert!(out.insert(number));
                    }
                } else if let Some((owner, number)) = idle.take(&key, |_| true) {
                    prop_assert_eq!(owner, key);
                    prop_assert!(out.insert(number));
                }
                prop_assert!(idle.entries.len() <= room);
            }
        }
    }
}
