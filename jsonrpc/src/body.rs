//! The bytes of a request's body, up to its JSON text.
//!
//! Scalaris' Python and Ruby clients percent-encode the whole text, its C++ client and most people do not; the
//! server decodes always.
//!
//! Differs from Scalaris: a `%` without two hexadecimal digits stays what it is, and text beyond Latin-1 is
//! taken as UTF-8; both end the connection there.

use percent_encoding::percent_decode;

/// The text of a body, or none if it is not UTF-8.
pub fn text(body: &[u8]) -> Option<String> {
    percent_decode(body).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::text;

    fn is(body: &str, expected: &str) {
        assert_eq!(text(body.as_bytes()).as_deref(), Some(expected));
    }

    #[test]
    fn plain_and_encoded_texts_are_the_same() {
        is(r#"{"id":0}"#, r#"{"id":0}"#);
        is("%7B%22id%22%3A0%7d", r#"{"id":0}"#);
    }

    #[test]
    fn only_escapes_are_decoded() {
        is("a+b?c%20d", "a+b?c d");
        is("100%", "100%");
        is("5%5", "5%5");
        is("%zz%%41", "%zz%A");
        is("%C3%A4ä", "ää");
    }

    #[test]
    fn what_is_no_utf_8_is_no_text() {
        assert_eq!(text(b"\xff"), None);
        assert_eq!(text(b"%FF"), None);
    }
}
