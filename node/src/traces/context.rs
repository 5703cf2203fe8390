//! The header `traceparent`.
//!
//! Source: W3C Trace Context, section 3.2.

use core::num::NonZeroU64;
use dht::Trace;
use tonic::metadata::MetadataMap;

/// The client's span that an operation is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace, and the client's span.
    pub trace: Trace,
    /// Whether the client wants it to be traced.
    pub is_sampled: bool,
}

/// The parent that a client names; none if it names none, or not as the rules have it.
pub(crate) fn parent_of(metadata: &MetadataMap) -> Option<Parent> {
    parse(metadata.get("traceparent")?.to_str().ok()?)
}

fn parse(text: &str) -> Option<Parent> {
    let mut parts = text.trim().split('-');
    let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |t: &str, n: usize| {
        let is_hex = t.len() == n && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_hex.then(|| u64::from_str_radix(t, 16).ok()).flatten()
    };
    let version = hex(version, 2)?;
    // Later versions may add parts; this one has none.
    if version == 0xff || version == 0 && parts.next().is_some() {
        return None;
    }
    let (high, low) = id.split_at_checked(16)?;
    let id = [hex(high, 16)?, hex(low, 16)?];
    let span = NonZeroU64::new(hex(span, 16)?).filter(|_| id != [0, 0])?;
    Some(Parent { trace: Trace { id, span }, is_sampled: hex(flags, 2)? & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_the_rules_have_it() {
        let p = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").expect("the example of W3C");
        assert_eq!(p.trace.id, [0x0af7_6519_16cd_43dd, 0x8448_eb21_1c80_319c]);
        assert_eq!((p.trace.span.get(), p.is_sampled), (0xb7ad_6b71_6920_3331, true));
        let unsampled =
            parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02-what-the-future-will-be");
        assert!(unsampled.is_some_and(|p| !p.is_sampled));
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319ü-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
