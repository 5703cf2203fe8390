//! The queue of events: what happens next, in the order of (time, number).
//!
//! Keeps:
//! 1. Of two events of one time the one that was put in first comes out first.
//!
//! The events lie apart from the heap that orders them: they are many times as large as their places in it.

use core::cmp::Reverse;
use ring::Time;
use std::collections::BinaryHeap;

/// Events that have not happened yet.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new() }
    }
}

impl<T> Queue<T> {
    /// Puts in an event that happens at `at`; `number` is above those of all events before.
    pub fn push(&mut self, at: Time, number: u64, event: T) {
        let place = match self.free.pop() {
            Some(free) => free,
            None => {
                self.events.push(None);
                self.events.len() - 1
            }
        };
        if let Some(room) = self.events.get_mut(place) {
            *room = Some(event);
        }
        self.heap.push(Reverse((at, number, place)));
    }

    /// Takes out the next event, with its time.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events.get_mut(place).and_then(Option::take)?;
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_by_time_and_then_in_the_order_in_which_they_came_in() {
        let mut q = Queue::default();
        for (number, at) in [(1, 5), (2, 3), (3, 5), (4, 1)] {
            q.push(Time(at), number, number);
        }
        assert_eq!(q.pop(), Some((Time(1), 4)));
        q.push(Time(3), 5, 5);
        let rest: Vec<(Time, u64)> = core::iter::from_fn(|| q.pop()).collect();
        assert_eq!(rest, [(Time(3), 2), (Time(3), 5), (Time(5), 1), (Time(5), 3)]);
        assert_eq!(q.events.len(), 4, "places are used again");
    }
}
