//! The codec of the client API: prost with small buffers, and with an answer to malformed messages.
//!
//! Differs from tonic's own codec in two things: a call allocates buffers of the size of a usual message instead
//! of 8 KiB each, and bytes that are not the expected message are the client's fault (INVALID_ARGUMENT with a
//! code), not INTERNAL.

use core::marker::PhantomData;
use prost::Message;
use std::collections::HashMap;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` of this program.
pub const ERROR_DOMAIN: &str = "kvnode";
/// The stable code of a request that is not the expected message.
pub const MALFORMED_CODE: &str = "KV-REQ-001";
/// `ErrorInfo.reason` of the same.
pub const MALFORMED_REASON: &str = "REQUEST_MALFORMED";

const BUFFER_BYTES: usize = 512;
const YIELD_BYTES: usize = 32 << 10;

/// Encodes `T` and decodes `U`.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Encodes messages of one type.
#[derive(Clone, Debug)]
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf).map_err(|e| Status::internal(format!("cannot encode the answer: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Decodes messages of one type.
#[derive(Clone, Debug)]
pub struct MessageDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(|e| malformed(&e))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

fn malformed(e: &prost::DecodeError) -> Status {
    let fix = "send the message of this method as in proto/kvnode/v1; keys and strings are UTF-8, \
               and at most 100 messages may be nested";
    let metadata = HashMap::from([
        ("code".to_owned(), MALFORMED_CODE.to_owned()),
        ("cause".to_owned(), e.to_string()),
        ("fix".to_owned(), fix.to_owned()),
        ("outcome".to_owned(), "not_done".to_owned()),
    ]);
    Status::with_error_details(
        Code::InvalidArgument,
        format!("{MALFORMED_CODE}: the request is not the expected message: {e}"),
        ErrorDetails::with_error_info(MALFORMED_REASON, ERROR_DOMAIN, metadata),
    )
}
