//! Settings as text: addresses, durations and sizes.

use core::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Where the node listens for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// This address.
    Addr(SocketAddr),
    /// The source address towards the first known host, with this port.
    Auto {
        /// The port.
        port: u16,
    },
}

/// A known host: an address or a name, resolved anew at every attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address or name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `ADDR`, `ADDR:PORT`, `[V6]`, `[V6]:PORT` or `auto`.
pub fn listen(text: &str, port: u16) -> Result<Listen, String> {
    if text == "auto" {
        return Ok(Listen::Auto { port });
    }
    socket_addr(text, port).map(Listen::Addr)
}

/// An IP address with or without a port.
pub fn socket_addr(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(a) = SocketAddr::from_str(text) {
        return Ok(a);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match IpAddr::from_str(bare) {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => {
            Err(format!("\"{text}\" is not an IP address, as 10.2.1.3, 10.2.1.3:{port} or [fd00::3]:{port}"))
        }
    }
}

/// One known host; `port` if it names none.
pub fn host(text: &str, port: u16) -> Result<Host, String> {
    if let Ok(a) = socket_addr(text, port) {
        return Ok(Host { host: a.ip().to_string(), port: a.port() });
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, p)) => {
            (name, u16::from_str(p).map_err(|_| format!("\"{p}\" in \"{text}\" is not a port"))?)
        }
        None => (text, port),
    };
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if is_name {
        Ok(Host { host: name.to_owned(), port })
    } else {
        Err(format!("\"{text}\" is neither an address nor a host name, as 10.2.1.3, node1 or node1:{port}"))
    }
}

/// `250ms`, `1.5s`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration, as 250ms, 1.5s or 2m");
    let (digits, unit) = split(text);
    let unit_us: u64 = match unit {
        "us" | "µs" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "" if digits == "0" => 1,
        _ => return Err(wrong()),
    };
    decimal(digits, unit_us).map(Duration::from_micros).ok_or_else(wrong)
}

/// `512MiB`, `1.5G`, `1000000`, `1GB`; with `whole` also a percentage of it.
pub fn size(text: &str, whole: Option<u64>) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size, as 512MiB, 2GiB, 1GB or a number of bytes");
    let (digits, unit) = split(text);
    let unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "%" => {
            let whole = whole.ok_or_else(wrong)?;
            let percent = u64::from_str(digits).ok().filter(|p| (1..=100).contains(p)).ok_or_else(wrong)?;
            return Ok(whole / 100 * percent);
        }
        _ => return Err(wrong()),
    };
    decimal(digits, unit).ok_or_else(wrong)
}

/// `true`, `false`, and what people write for them.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

fn split(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    (digits, unit.trim())
}

/// `digits`, with at most nine decimals, times `unit`.
fn decimal(digits: &str, unit: u64) -> Option<u64> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || part.len() > 9 || (part.is_empty() && digits.contains('.')) {
        return None;
    }
    let mut value = u128::from(u64::from_str(whole).ok()?) * u128::from(unit);
    if !part.is_empty() {
        let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
        value += u128::from(u64::from_str(part).ok()?) * u128::from(unit) / scale;
    }
    u64::try_from(value).ok()
}

/// The address of a collector of traces; empty means none.
pub(super) fn collector(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: http::Uri = text.parse().map_err(|e| format!("\"{text}\" is not a URL: {e}"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(Some(text.to_owned())),
        Some("https") => {
            Err("spans are sent unencrypted; let a collector on this machine pass them on".to_owned())
        }
        _ => Err(format!("\"{text}\" is not like http://127.0.0.1:4317")),
    }
}

/// A part from 0 to 1, in millionths.
pub(super) fn per_million(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is not a number from 0 to 1");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = part.chars().chain("000000".chars()).take(6).collect();
    if part.len() > 6 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{}, with at most six digits after the point", wrong()));
    }
    let whole: u32 = whole.parse().ok().filter(|w| *w <= 1).ok_or_else(wrong)?;
    let all = whole * 1_000_000 + digits.parse::<u32>().map_err(|_| wrong())?;
    if all > 1_000_000 { Err(wrong()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "ms", "1.s", "-1s", "1 week"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512MiB", None), Ok(512 << 20));
        assert_eq!(size("1.5G", None), Ok(3 << 29));
        assert_eq!(size("1000", None), Ok(1000));
        assert_eq!(size("70%", Some(1000)), Ok(700));
        for bad in ["", "12X", "200%", "70%G", "99999999999999999999"] {
            assert!(size(bad, Some(1)).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_names() {
        let a = |t: &str| t.parse().expect("an address");
        assert_eq!(listen("10.2.1.3", 14195), Ok(Listen::Addr(a("10.2.1.3:14195"))));
        assert_eq!(listen("[fd00::3]:5", 14195), Ok(Listen::Addr(a("[fd00::3]:5"))));
        assert_eq!(listen("fd00::3", 14195), Ok(Listen::Addr(a("[fd00::3]:14195"))));
        assert_eq!(listen("auto", 7), Ok(Listen::Auto { port: 7 }));
        assert!(listen("node1", 1).is_err());
        assert_eq!(host("node-1.example:99", 1).map(|h| h.to_string()), Ok("node-1.example:99".to_owned()));
        assert_eq!(host("fd00::3", 14195).map(|h| h.to_string()), Ok("[fd00::3]:14195".to_owned()));
        assert!(host("a b", 1).is_err());
        assert!(host("a:b", 1).is_err());
    }

    #[test]
    fn a_part_is_read_to_the_millionth() {
        for (text, millionths) in
            [("1", 1_000_000), ("0", 0), ("0.25", 250_000), ("1.0", 1_000_000), ("0.000001", 1)]
        {
            assert_eq!(per_million(text), Ok(millionths), "{text}");
        }
        for text in ["", "2", "1.1", "-1", "0.x", "0.0000001", "one"] {
            assert!(per_million(text).is_err(), "{text}");
        }
    }
}
