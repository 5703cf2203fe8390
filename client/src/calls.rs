//! The operations of a client, one method each.

use crate::error::Error;
use crate::{Client, Condition, Deleted, Entry, Value};
use proto::client_api::{condition_to_wire, value_from_wire, value_to_wire};
use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::kv_client::KvClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn list(values: &[Value]) -> Vec<v1::Value> {
    values.iter().map(value_to_wire).collect()
}

impl Client {
    /// The value of `key` and its version, or nothing if it is not there. Linearizable.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = v1::GetRequest { key: key.to_owned() };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).get(request).await }
        };
        match self.run(Some(key), true, call).await {
            Ok((answer, node)) => {
                let answer = answer.into_inner();
                let value = value_from_wire(answer.value);
                let value = value.map_err(|e| Error::nonsense(&node.address, &e.to_string()))?;
                Ok(Some(Entry { value, version: answer.version }))
            }
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes `value` to `key`; the version of it.
    pub async fn put(&self, key: &str, value: Value) -> Result<u64, Error> {
        self.put_if(key, value, Condition::Always).await
    }

    /// Writes `value` to `key` if `condition` holds; the version of it. [`Error::Conflict`] if it does not.
    pub async fn put_if(&self, key: &str, value: Value, condition: Condition) -> Result<u64, Error> {
        let (value, condition) = (Some(value_to_wire(&value)), condition_to_wire(condition));
        let request = v1::PutRequest { key: key.to_owned(), value, condition };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).put(request).await }
        };
        Ok(self.run(Some(key), false, call).await?.0.into_inner().version)
    }

    /// Removes `key`. That it was not there is no error.
    pub async fn delete(&self, key: &str) -> Result<Deleted, Error> {
        self.delete_if(key, Condition::Always).await
    }

    /// Removes `key` if `condition` holds.
    pub async fn delete_if(&self, key: &str, condition: Condition) -> Result<Deleted, Error> {
        let request = v1::DeleteRequest { key: key.to_owned(), condition: condition_to_wire(condition) };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).delete(request).await }
        };
        let answer = self.run(Some(key), false, call).await?.0.into_inner();
        Ok(Deleted { existed: answer.existed, version: answer.version })
    }

    /// Writes `new` to `key` if its value is `old`; the new version. [`Error::Conflict`] with the present value
    /// if it is another, [`Error::NotFound`] if the key is not there.
    pub async fn test_and_set(&self, key: &str, old: Value, new: Value) -> Result<u64, Error> {
        let (old, new) = (Some(value_to_wire(&old)), Some(value_to_wire(&new)));
        let request = v1::TestAndSetRequest { key: key.to_owned(), old, new };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).test_and_set(request).await }
        };
        Ok(self.run(Some(key), false, call).await?.0.into_inner().version)
    }

    /// Adds `by`, an integer or a double, to the number at `key`; a missing key counts as zero. The version, and
    /// the sum where the node still knows it.
    pub async fn add_on_number(&self, key: &str, by: Value) -> Result<(u64, Option<Value>), Error> {
        let request = v1::AddOnNumberRequest { key: key.to_owned(), by: Some(value_to_wire(&by)) };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).add_on_number(request).await }
        };
        let answer = self.run(Some(key), false, call).await?.0.into_inner();
        Ok((answer.version, answer.value.and_then(|v| value_from_wire(Some(v)).ok())))
    }

    /// Puts `add` before the list at `key`, then removes the first occurrence of each of `remove`; a missing key
    /// counts as the empty list. The version.
    pub async fn add_del_on_list(&self, key: &str, add: &[Value], remove: &[Value]) -> Result<u64, Error> {
        let request = v1::AddDelOnListRequest { key: key.to_owned(), add: list(add), remove: list(remove) };
        let call = |c| {
            let request = request.clone();
            async move { kv(c).add_del_on_list(request).await }
        };
        Ok(self.run(Some(key), false, call).await?.0.into_inner().version)
    }

    /// What a node knows of itself and its ring.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        let call = |c| async move { ClusterClient::new(c).status(v1::StatusRequest {}).await };
        Ok(self.run(None, true, call).await?.0.into_inner())
    }

    /// The members.
    pub async fn members(&self) -> Result<Vec<v1::Member>, Error> {
        let call = |c| async move { ClusterClient::new(c).members(v1::MembersRequest {}).await };
        Ok(self.run(None, true, call).await?.0.into_inner().members)
    }

    /// Who owns what.
    pub async fn ring(&self) -> Result<v1::RingResponse, Error> {
        let call = |c| async move {
            ClusterClient::new(c).max_decoding_message_size(usize::MAX).ring(v1::RingRequest {}).await
        };
        Ok(self.run(None, true, call).await?.0.into_inner())
    }

    /// Where the replicas of `key` are, whether it is there or not.
    pub async fn locate(&self, key: &str) -> Result<v1::LocateResponse, Error> {
        let request = v1::LocateRequest { key: key.to_owned() };
        let call = |c| {
            let request = request.clone();
            async move { ClusterClient::new(c).locate(request).await }
        };
        Ok(self.run(None, true, call).await?.0.into_inner())
    }

    /// What a node did lately, after a time in milliseconds since 1970.
    pub async fn history(&self, after_milliseconds: u64) -> Result<v1::HistoryResponse, Error> {
        let request = v1::HistoryRequest { after_milliseconds };
        let call = |c| async move { ClusterClient::new(c).history(request).await };
        Ok(self.run(None, true, call).await?.0.into_inner())
    }

    /// Makes the node at the first endpoint, and no other, decide anew from what is left whatever has lost its quorum;
    /// with `execute` off it only tells what that would mean.
    pub async fn salvage(&self, execute: bool) -> Result<v1::SalvageResponse, Error> {
        let request = v1::SalvageRequest { execute };
        self.at_first(async move |mut node: ClusterClient<_>| node.salvage(request).await).await
    }

    /// Makes the node at the first endpoint, and no other, give up its ring's data for those of another ring that it
    /// meets, its members joining that one; with `execute` off it only tells what that would mean.
    pub async fn dissolve(&self, execute: bool) -> Result<v1::DissolveResponse, Error> {
        let request = v1::DissolveRequest { execute };
        self.at_first(async move |mut node: ClusterClient<_>| node.dissolve(request).await).await
    }

    /// Makes the node at the first endpoint, and no other, hand over everything and leave; whether all of it
    /// found a new owner.
    pub async fn leave(&self) -> Result<bool, Error> {
        let request = v1::LeaveRequest {};
        let left = self.at_first(async move |mut node: ClusterClient<_>| node.leave(request).await).await?;
        Ok(left.clean)
    }

    /// A command to one node, which is sent once.
    async fn at_first<T>(
        &self,
        call: impl AsyncFnOnce(ClusterClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let Some(node) = self.0.given.first() else { return Err(Error::CannotConnect { tried: Vec::new() }) };
        let cluster = ClusterClient::new(node.channel().await?);
        match tokio::time::timeout(self.0.config.deadline, call(cluster)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(crate::error::failed(&status, &node.address, false).error),
            Err(_) => Err(Error::timed_out(&node.address, self.0.config.deadline)),
        }
    }
}
