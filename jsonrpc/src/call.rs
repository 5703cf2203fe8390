//! The methods of each page, and what their parameters are.
//!
//! Keeps:
//! 1. A method that a page does not have, or has with another number of parameters, is [`Call::Unknown`]; one
//!    whose parameters make no sense is a [`Reject`].

use crate::json::Json;
use crate::log::Log;
use crate::parameters::{add_del, add_on_nr, count, key, natural, node_name, node_names, position, requests};
use crate::value::{kind, value_of_json, value_of_typed};
use store::Value;

/// The default time of a delete, in milliseconds.
const DELETE_TIMEOUT_MS: u64 = 2000;
/// The default time of a question for the ring's size, in milliseconds.
const RING_SIZE_TIMEOUT_MS: u64 = 2000;

/// Why a call cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The code of JSON-RPC.
    pub code: i32,
    /// The cause, for people.
    pub cause: String,
}

impl Reject {
    /// A value of another shape: what Scalaris answers where no clause of a function matches.
    pub fn misshapen(cause: impl Into<String>) -> Reject {
        Reject { code: -32601, cause: cause.into() }
    }

    /// Parameters that make no sense, where Scalaris answers 500.
    pub fn invalid(cause: impl Into<String>) -> Reject {
        Reject { code: -32602, cause: cause.into() }
    }
}

/// A page, which is a set of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/jsonrpc.yaws`.
    Legacy,
    /// `/api/tx.yaws`.
    Tx,
    /// `/api/rdht.yaws`.
    Rdht,
    /// `/api/dht_raw.yaws`.
    DhtRaw,
    /// `/api/rbr.yaws`.
    Rbr,
    /// `/api/rt.yaws`.
    Rt,
    /// `/api/vm.yaws`.
    Vm,
    /// `/api/monitor.yaws`.
    Monitor,
    /// `/api/autoscale.yaws`.
    Autoscale,
}

impl Page {
    /// Every page with its path.
    pub const ALL: [(&'static str, Page); 9] = [
        ("/jsonrpc.yaws", Page::Legacy),
        ("/api/tx.yaws", Page::Tx),
        ("/api/rdht.yaws", Page::Rdht),
        ("/api/dht_raw.yaws", Page::DhtRaw),
        ("/api/rbr.yaws", Page::Rbr),
        ("/api/rt.yaws", Page::Rt),
        ("/api/vm.yaws", Page::Vm),
        ("/api/monitor.yaws", Page::Monitor),
        ("/api/autoscale.yaws", Page::Autoscale),
    ];

    /// The page at this path.
    pub fn at(path: &str) -> Option<Page> {
        Page::ALL.iter().find(|(p, _)| *p == path).map(|(_, page)| *page)
    }
}

/// An operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads it.
    Read,
    /// Changes it.
    Edit(Edit),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Writes it.
    Write(Value),
    /// Edits a list; none: a parameter is not a list.
    AddDelOnList(Option<(Value, Value)>),
    /// Adds a number; none: the parameter is not a number.
    AddOnNumber(Option<Value>),
    /// Compares and writes.
    TestAndSet {
        /// The expected value.
        old: Value,
        /// The new value.
        new: Value,
    },
}

/// An entry of a request list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// On this key.
    Operation(String, Operation),
    /// Commits.
    Commit,
}

/// Which of the virtual nodes of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this name.
    Name(String),
    /// Any so many.
    Count(usize),
    /// Those of these names.
    Names(Vec<String>),
}

/// A call of the page `vm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmCall {
    /// The program's version.
    GetVersion,
    /// What the process is.
    GetInfo,
    /// How many nodes it has.
    NumberOfNodes,
    /// Their names.
    GetNodes,
    /// Adds so many.
    AddNodes(usize),
    /// Ends some after they handed over.
    ShutdownNodes(Which),
    /// Ends some at once.
    KillNodes(Which),
    /// At most so many other processes of the ring.
    GetOtherVms(usize),
    /// Ends the process after it handed over.
    ShutdownVm,
    /// Ends the process at once.
    KillVm,
}

/// A call of the page `monitor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorCall {
    /// About this process.
    NodeInfo,
    /// Latencies of operations here.
    NodePerformance,
    /// About the ring.
    ServiceInfo,
    /// Latencies of operations of the ring.
    ServicePerformance,
}

/// A call of the page `autoscale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoscaleCall {
    /// Whether it is configured.
    CheckConfig,
    /// How many processes are to be added.
    PullScaleReq,
    /// Takes the lock.
    LockScaleReq,
    /// Gives it back.
    UnlockScaleReq,
}

/// What is measured by a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchmarkCall {
    /// Increments.
    Increment,
    /// Reads.
    Read,
}

/// A call of any page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Does nothing.
    Nop,
    /// One operation that commits by itself.
    Single(String, Operation),
    /// A step of a transaction.
    ReqList(Log, Vec<Request>),
    /// Operations that commit by themselves.
    ReqListCommitEach(Vec<(String, Operation)>),
    /// Deletes a key.
    Delete {
        /// The key.
        key: String,
        /// How long it may take.
        timeout_ms: u64,
    },
    /// What the replicas between two positions hold.
    RangeRead {
        /// The first position.
        from: u128,
        /// The last position.
        to: u128,
    },
    /// The same of the process that is asked alone. Scalaris has no such call.
    RangeReadHere {
        /// The first position.
        from: u128,
        /// The last position.
        to: u128,
    },
    /// Writes a value that has no type, and reads it by [`Operation::Read`].
    RbrWrite(String, Value),
    /// The replication factor.
    GetReplicationFactor,
    /// Of the page `vm`.
    Vm(VmCall),
    /// Of the page `monitor`.
    Monitor(MonitorCall),
    /// Of the page `autoscale`.
    Autoscale(AutoscaleCall),
    /// The number of nodes in the ring.
    GetRingSize {
        /// How long it may take.
        timeout_ms: u64,
    },
    /// Waits until the ring has so many nodes.
    WaitForRingSize {
        /// How many.
        size: usize,
        /// How long.
        timeout_ms: u64,
    },
    /// A benchmark of the ring.
    Benchmark(BenchmarkCall),
    /// No page has it.
    Unknown,
}

/// The call that `method` is on `page`.
pub fn call(page: Page, method: &str, params: &[Json]) -> Result<Call, Reject> {
    if let ("nop", [_]) = (method, params) {
        return Ok(Call::Nop);
    }
    let found = match page {
        Page::Legacy => legacy(method, params)?,
        Page::Tx => tx(method, params)?,
        Page::Rdht => rdht(method, params)?,
        Page::DhtRaw => dht_raw(method, params)?,
        Page::Rbr => rbr(method, params)?,
        Page::Rt => rt(method, params),
        Page::Vm => vm(method, params)?.map(Call::Vm),
        Page::Monitor => monitor(method, params).map(Call::Monitor),
        Page::Autoscale => autoscale(method, params).map(Call::Autoscale),
    };
    Ok(found.unwrap_or(Call::Unknown))
}

fn legacy(method: &str, params: &[Json]) -> Result<Option<Call>, Reject> {
    if let Some(rest) = method.strip_prefix("rbr_") {
        return rbr(rest, params);
    }
    let own = match (method, params) {
        ("get_ring_size", []) => Call::GetRingSize { timeout_ms: RING_SIZE_TIMEOUT_MS },
        ("get_ring_size", [timeout]) => Call::GetRingSize { timeout_ms: natural(timeout, "the timeout")? },
        ("wait_for_ring_size", [size, timeout]) => Call::WaitForRingSize {
            size: count(size, "the size")?,
            timeout_ms: natural(timeout, "the timeout")?,
        },
        ("run_benchmark_incr", []) => Call::Benchmark(BenchmarkCall::Increment),
        ("run_benchmark_read", []) => Call::Benchmark(BenchmarkCall::Read),
        _ => {
            return Ok(match tx(method, params)? {
                Some(call) => Some(call),
                None => match rdht(method, params)? {
                    Some(call) => Some(call),
                    None => dht_raw(method, params)?
                        .or_else(|| rt(method, params))
                        .or_else(|| monitor(method, params).map(Call::Monitor)),
                },
            });
        }
    };
    Ok(Some(own))
}

fn tx(method: &str, params: &[Json]) -> Result<Option<Call>, Reject> {
    let single = |k, operation| Ok(Some(Call::Single(key(k)?, operation)));
    match (method, params) {
        ("read", [k]) => single(k, Operation::Read),
        ("write", [k, value]) => single(k, Operation::Edit(Edit::Write(value_of_typed(value)?))),
        ("add_del_on_list", [k, add, del]) => single(k, Operation::Edit(add_del(add, del)?)),
        ("add_on_nr", [k, by]) => single(k, Operation::Edit(add_on_nr(by)?)),
        ("test_and_set", [k, old, new]) => {
            let (old, new) = (value_of_typed(old)?, value_of_typed(new)?);
            single(k, Operation::Edit(Edit::TestAndSet { old, new }))
        }
        ("req_list", [list]) => Ok(Some(Call::ReqList(Log::default(), requests(list)?))),
        ("req_list", [log, list]) => {
            let Json::String(token) = log else {
                return Err(Reject::invalid(format!("the transaction log is a string, not {}", kind(log))));
            };
            let log = Log::from_token(token).map_err(|e| Reject::invalid(e.to_string()))?;
            Ok(Some(Call::ReqList(log, requests(list)?)))
        }
        ("req_list_commit_each", [list]) => {
            let each = requests(list)?.into_iter().map(|r| match r {
                Request::Operation(key, operation) => Ok((key, operation)),
                Request::Commit => {
                    Err(Reject::invalid("\"commit\" has no place where each operation commits by itself"))
                }
            });
            Ok(Some(Call::ReqListCommitEach(each.collect::<Result<_, _>>()?)))
        }
        _ => Ok(None),
    }
}

fn rdht(method: &str, params: &[Json]) -> Result<Option<Call>, Reject> {
    let (k, timeout_ms) = match (method, params) {
        ("delete", [k]) => (k, DELETE_TIMEOUT_MS),
        ("delete", [k, timeout]) => (k, natural(timeout, "the timeout")?),
        _ => return Ok(None),
    };
    Ok(Some(Call::Delete { key: key(k)?, timeout_ms }))
}

fn dht_raw(method: &str, params: &[Json]) -> Result<Option<Call>, Reject> {
    match (method, params) {
        ("range_read", [from, to]) => Ok(Some(Call::RangeRead { from: position(from)?, to: position(to)? })),
        ("range_read_here", [from, to]) => {
            Ok(Some(Call::RangeReadHere { from: position(from)?, to: position(to)? }))
        }
        _ => Ok(None),
    }
}

fn rbr(method: &str, params: &[Json]) -> Result<Option<Call>, Reject> {
    match (method, params) {
        ("read", [k]) => Ok(Some(Call::Single(key(k)?, Operation::Read))),
        ("write", [k, value]) => Ok(Some(Call::RbrWrite(key(k)?, value_of_json(value)?))),
        _ => Ok(None),
    }
}

fn rt(method: &str, params: &[Json]) -> Option<Call> {
    matches!((method, params), ("get_replication_factor", [])).then_some(Call::GetReplicationFactor)
}

fn vm(method: &str, params: &[Json]) -> Result<Option<VmCall>, Reject> {
    Ok(Some(match (method, params) {
        ("get_version", []) => VmCall::GetVersion,
        ("get_info", []) => VmCall::GetInfo,
        ("number_of_nodes", []) => VmCall::NumberOfNodes,
        ("get_nodes", []) => VmCall::GetNodes,
        ("add_nodes", [n]) => VmCall::AddNodes(count(n, "the number of nodes")?),
        ("shutdown_node", [name]) => VmCall::ShutdownNodes(Which::Name(node_name(name)?)),
        ("shutdown_nodes", [n]) => VmCall::ShutdownNodes(Which::Count(count(n, "the number of nodes")?)),
        ("shutdown_nodes_by_name", [names]) => VmCall::ShutdownNodes(Which::Names(node_names(names)?)),
        ("kill_node", [name]) => VmCall::KillNodes(Which::Name(node_name(name)?)),
        ("kill_nodes", [n]) => VmCall::KillNodes(Which::Count(count(n, "the number of nodes")?)),
        ("kill_nodes_by_name", [names]) => VmCall::KillNodes(Which::Names(node_names(names)?)),
        ("get_other_vms", [max]) => match count(max, "the number of processes")? {
            0 => return Err(Reject::misshapen("the number of processes is at least 1")),
            max => VmCall::GetOtherVms(max),
        },
        ("shutdown_vm", []) => VmCall::ShutdownVm,
        ("kill_vm", []) => VmCall::KillVm,
        _ => return Ok(None),
    }))
}

fn monitor(method: &str, params: &[Json]) -> Option<MonitorCall> {
    match (method, params) {
        ("get_node_info", []) => Some(MonitorCall::NodeInfo),
        ("get_node_performance", []) => Some(MonitorCall::NodePerformance),
        ("get_service_info", []) => Some(MonitorCall::ServiceInfo),
        ("get_service_performance", []) => Some(MonitorCall::ServicePerformance),
        _ => None,
    }
}

fn autoscale(method: &str, params: &[Json]) -> Option<AutoscaleCall> {
    match (method, params) {
        ("check_config", []) => Some(AutoscaleCall::CheckConfig),
        ("pull_scale_req", []) => Some(AutoscaleCall::PullScaleReq),
        ("lock_scale_req", []) => Some(AutoscaleCall::LockScaleReq),
        ("unlock_scale_req", []) => Some(AutoscaleCall::UnlockScaleReq),
        _ => None,
    }
}
