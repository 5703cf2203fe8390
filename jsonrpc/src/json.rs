//! JSON text, both ways: the strict grammar of RFC 8259, with the members of objects in their order and the
//! text of numbers as it was sent.
//!
//! Scalaris echoes ids unchanged and has integers of any size, so numbers stay text here; what they are worth
//! is decided in [`crate::value`].
//!
//! Keeps:
//! 1. No text panics or nests deeper than [`DEPTH_MAX`]; what is not JSON is a [`ParseError`].
//! 2. `parse(write(j))` is `j`; what is written has no line feed and is valid UTF-8.
//!
//! Differs from Scalaris: text is UTF-8 throughout, where it sends Latin-1 for some strings and drops the
//! connection for others; half a surrogate pair is a parse error.

/// The deepest nesting of arrays and objects in a body: the deepest value, and the envelope around it.
pub const DEPTH_MAX: usize = 128 + 8;

/// A JSON text taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as its text.
    Number(Box<str>),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; a name may occur twice.
    Object(Vec<(String, Json)>),
}

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}")]
pub struct ParseError {
    /// How many bytes are.
    pub at: usize,
}

impl Json {
    /// A string.
    pub fn string(text: impl Into<String>) -> Json {
        Json::String(text.into())
    }

    /// An integer.
    pub fn integer(i: impl ToString) -> Json {
        Json::Number(i.to_string().into())
    }

    /// An object with these members in this order.
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
        Json::Object(members.into_iter().map(|(name, j)| (name.to_owned(), j)).collect())
    }

    /// The text.
    pub fn write(&self) -> String {
        let mut out = String::new();
        self.write_to(&mut out);
        out
    }

    /// Appends the text.
    pub fn write_to(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Json::Number(text) => out.push_str(text),
            Json::String(text) => write_string(out, text),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_to(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (i, (name, item)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(out, name);
                    out.push(':');
                    item.write_to(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Takes a text apart; blanks around it are skipped.
pub fn parse(text: &str) -> Result<Json, ParseError> {
    let mut p = Parser { text, at: 0 };
    let json = p.value(0)?;
    p.blanks();
    if p.at == text.len() { Ok(json) } else { Err(p.error()) }
}

struct Parser<'a> {
    text: &'a str,
    /// Always between two characters.
    at: usize,
}

impl<'a> Parser<'a> {
    fn error(&self) -> ParseError {
        ParseError { at: self.at }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), ParseError> {
        if self.take(token) { Ok(()) } else { Err(self.error()) }
    }

    fn value(&mut self, depth: usize) -> Result<Json, ParseError> {
        self.blanks();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.expect("true").map(|()| Json::Bool(true)),
            Some(b'f') => self.expect("false").map(|()| Json::Bool(false)),
            Some(b'n') => self.expect("null").map(|()| Json::Null),
            _ => Err(self.error()),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, ParseError> {
        if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(self.error()) }
    }

    fn array(&mut self, depth: usize) -> Result<Json, ParseError> {
        let depth = self.deeper(depth)?;
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.blanks();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            self.expect(",")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, ParseError> {
        let depth = self.deeper(depth)?;
        self.at += 1;
        let mut members = Vec::new();
        self.blanks();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.error());
            }
            let name = self.string()?;
            self.blanks();
            self.expect(":")?;
            members.push((name, self.value(depth)?));
            self.blanks();
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            self.expect(",")?;
        }
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.error()) }
    }

    fn number(&mut self) -> Result<Json, ParseError> {
        let start = self.at;
        self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        if self.take(".") {
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            let _ = self.take("+") || self.take("-");
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // Beyond the doubles: there is no such number in Erlang either.
        let is_double = text.contains(['.', 'e', 'E']);
        if is_double && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(ParseError { at: start });
        }
        Ok(Json::Number(text.into()))
    }

    fn string(&mut self) -> Result<String, ParseError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.rest().find(['"', '\\']).unwrap_or(self.rest().len());
            let run = self.rest().get(..plain).unwrap_or_default();
            if let Some(i) = run.bytes().position(|b| b < 0x20) {
                return Err(ParseError { at: self.at + i });
            }
            out.push_str(run);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return Err(self.error()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ParseError> {
        let c = match self.peek() {
            Some(b'u') => {
                self.at += 1;
                return self.code_point();
            }
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            _ => return Err(self.error()),
        };
        self.at += 1;
        Ok(c)
    }

    fn code_point(&mut self) -> Result<char, ParseError> {
        let at = self.at;
        let first = self.hex4()?;
        let point = if (0xd800..0xdc00).contains(&first) && self.take("\\u") {
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(ParseError { at });
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        // Scalaris has no strings with U+0000.
        char::from_u32(point).filter(|c| *c != '\0').ok_or(ParseError { at })
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let digits = self.rest().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|d| u32::from_str_radix(d, 16).ok()).ok_or(self.error())?;
        self.at += 4;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i128>().prop_map(Json::integer),
            any::<f64>()
                .prop_filter("JSON has finite numbers", |d| d.is_finite())
                .prop_map(|d| Json::Number(format!("{d:e}").into())),
            "[^\u{0}]{0,12}".prop_map(Json::String),
        ];
        leaf.prop_recursive(5, 48, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
                proptest::collection::vec(("[^\u{0}]{0,5}", inner), 0..5).prop_map(Json::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_parses_to_itself(j in any_json()) {
            let text = j.write();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(parse(&text), Ok(j));
        }

        #[test]
        fn what_parses_is_json_to_another_parser_too(text in "[\\[\\]{}\",:0-9eE.+\\-a-fnrtu\\\\ l]{0,24}") {
            if parse(&text).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }

        #[test]
        fn what_another_parser_takes_parses(j in any_json(), cut in 0usize..40, with in "[\\[\\]{}\",:0e. ]{0,3}") {
            let mut text = j.write();
            let at = (0..=cut.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.insert_str(at, &with);
            let other = serde_json::from_str::<serde_json::Value>(&text);
            let differs = text.contains('e') || text.contains('.') || text.contains("\\u0000");
            prop_assert!(parse(&text).is_ok() == other.is_ok() || differs);
        }
    }

    #[test]
    fn escapes_and_pairs_of_surrogates_are_characters() {
        assert_eq!(parse(r#""\u00e4\ud834\udd1e\/\n""#), Ok(Json::string("ä𝄞/\n")));
        for broken in
            [r#""\ud834""#, r#""\ud834\u0041""#, r#""\udd1e""#, r#""\u00""#, r#""\u+123""#, r#""\x""#]
        {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_scalaris_refuses_is_refused() {
        for text in
            ["", " ", "{", "{}x", "\"\\u0000\"", "\"\n\"", "01", "1.", "+1", "1e999", "[1,]", "nul", "{1:2}"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn control_characters_are_written_as_scalaris_writes_them() {
        assert_eq!(Json::string("\u{1}\u{1f}\t\"/\\ä").write(), r#""\u0001\u001f\t\"/\\ä""#);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(parse(&nested(DEPTH_MAX + 1)).is_err());
        assert!(parse(&"[".repeat(1 << 20)).is_err());
    }
}
