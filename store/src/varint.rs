//! Whole numbers in as few bytes as they need, seven bits each, the low ones first.

/// Appends `x`.
pub(crate) fn put(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(u8::try_from(x & 0x7f).unwrap_or(0) | 0x80);
        x >>= 7;
    }
    out.push(u8::try_from(x).unwrap_or(0));
}

/// A length as a number.
pub(crate) fn of_len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Takes a number from the front.
pub(crate) fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut x = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        x |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return Some(x);
        }
    }
    None
}
