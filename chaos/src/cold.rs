//! Keys that are written once and then left alone while rounds of faults go over them: what a memory that was
//! lost without anybody noticing would be missed by.

use crate::door::Doors;
use harness::Res;
use sim::draw::Draw;
use std::collections::BTreeMap;
use std::time::Duration;
use store::Value;
use tokio::runtime::Runtime;

const WRITTEN_PER_ROUND: u64 = 8;
const READ_PER_ROUND: usize = 24;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Cold {
    known: BTreeMap<String, (Value, u64)>,
}

impl Cold {
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn any(&self) -> Option<String> {
        self.known.keys().next_back().cloned()
    }

    pub(crate) fn write(&mut self, runtime: &Runtime, doors: &Doors, round: u64, draw: &mut Draw) {
        for i in 0..WRITTEN_PER_ROUND {
            let (key, value) = (format!("cold-{round}-{i}"), Value::string(&format!("{round}/{i}")));
            let Some(door) = draw.pick(&doors.open()) else { return };
            let put = async { door.client().await?.put(&key, value.clone()).await };
            if let Ok(version) = runtime.block_on(put) {
                self.known.insert(key, (value, version));
            }
        }
    }

    /// Reads some of them, or all, each at some node.
    pub(crate) fn verify(&self, runtime: &Runtime, doors: &Doors, draw: &mut Draw, all: bool) -> Res<()> {
        let keys: Vec<&String> = self.known.keys().collect();
        let chosen: Vec<&String> =
            if all { keys } else { (0..READ_PER_ROUND).filter_map(|_| draw.pick(&keys)).collect() };
        for key in chosen {
            let Some(want) = self.known.get(key) else { continue };
            let Some(door) = draw.pick(&doors.open()) else { return Err("no node serves".to_owned()) };
            let read = runtime.block_on(async {
                let began = tokio::time::Instant::now();
                loop {
                    let got = async { door.client().await?.get(key).await };
                    match got.await {
                        Ok(entry) => return Ok(entry.map(|e| (e.value, e.version))),
                        Err(e) if began.elapsed() > PATIENCE => return Err(e.to_string()),
                        Err(_) => {}
                    }
                }
            });
            match read {
                Ok(Some(got)) if got == *want => {}
                Ok(got) => {
                    let at = &door.endpoint;
                    return Err(format!("LOST: {key} was acknowledged as {want:?}, {at} answers {got:?}"));
                }
                Err(e) => return Err(format!("{key} is not answered within {PATIENCE:?}: {e}")),
            }
        }
        Ok(())
    }
}
