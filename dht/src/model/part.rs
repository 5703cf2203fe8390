//! A part of a state: shared between states until it changes, with a print of what it says.
//!
//! Keeps:
//! 1. A part that was changed has no print until [`Part::press`].

use core::fmt::{Debug, Write};
use core::hash::Hasher;
use core::ops::{Deref, DerefMut};
use std::hash::DefaultHasher;
use std::sync::Arc;

/// Feeds text to a hasher.
struct Feed(DefaultHasher);

impl Write for Feed {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.0.write(s.as_bytes());
        Ok(())
    }
}

/// A number for what something says of itself.
pub(crate) fn print(what: &impl Debug) -> u64 {
    let mut feed = Feed(DefaultHasher::new());
    let _ = write!(feed, "{what:?}");
    feed.0.finish()
}

/// A part of a state.
#[derive(Clone)]
pub(crate) struct Part<T> {
    value: Arc<T>,
    print: Option<u64>,
}

impl<T: Debug> Part<T> {
    pub(crate) fn new(value: T) -> Part<T> {
        Part { value: Arc::new(value), print: None }
    }

    /// Makes its print anew if it has changed.
    pub(crate) fn press(&mut self) {
        self.print.get_or_insert_with(|| print(&self.value));
    }

    pub(crate) fn print(&self) -> u64 {
        self.print.expect("it was pressed since it changed")
    }
}

impl<T: Debug> Debug for Part<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.print = None;
        Arc::make_mut(&mut self.value)
    }
}
