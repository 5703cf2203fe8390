//! Processor time and memory of other processes, from `/proc`.

use std::process::Command;
use std::time::Duration;

/// Of what the kernel counts processor time in.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ticks_per_second: u32,
}

impl Clock {
    /// Asks the system.
    pub fn new() -> Result<Clock, String> {
        let out = Command::new("getconf").arg("CLK_TCK").output().map_err(|e| format!("getconf: {e}"))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let ticks_per_second = text.trim().parse().map_err(|_| format!("getconf CLK_TCK gave {text:?}"))?;
        Ok(Clock { ticks_per_second })
    }

    /// User and system time of all threads of these processes since they began.
    pub fn processor_time(&self, pids: &[u32]) -> Result<Duration, String> {
        let mut ticks = 0u32;
        for pid in pids {
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            ticks += ticks_of(&stat).ok_or_else(|| format!("{path} is not as expected: {stat}"))?;
        }
        Ok(Duration::from_secs(1) * ticks / self.ticks_per_second)
    }
}

/// Fields 14 and 15; the second field is a name in parentheses that may contain anything.
fn ticks_of(stat: &str) -> Option<u32> {
    let mut after = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (after.next()?.parse().ok()?, after.next()?.parse().ok()?);
    Some(user + system)
}

/// Resident memory of these processes in bytes.
pub fn resident_bytes(pids: &[u32]) -> Result<u64, String> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let kib: Option<u64> = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        sum += kib.ok_or_else(|| format!("{path} tells no VmRSS"))? * 1024;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("7 (a"), None);
    }
}
