//! Whose a record is, by the decoders of the lane itself: what brings all rows of a device to one lane must agree with
//! what the lane says.

use super::{Decoder, Decoding};
use crate::decode::{AvroDecoder, JsonDecoder, ProtobufDecoder, RowDecoder, RowError, SchemaAnswer};
use crate::plan::LanePlan;

/// Reads the device of records of one row. Holds no state between records that affects results, but for the schemas learnt.
#[derive(Debug)]
pub struct DeviceReader {
    decoder: Decoder,
    key: usize,
    max_record_bytes: usize,
}

impl DeviceReader {
    /// For the source of a plan. `None` where a record holds rows of several devices (Arrow).
    pub fn new(plan: &LanePlan) -> Option<Self> {
        let source = &plan.source;
        let decoder = match &plan.decoding {
            Decoding::Json => Decoder::Json(JsonDecoder::new(&source.fields)),
            Decoding::Avro => Decoder::Avro(AvroDecoder::new(&source.fields)),
            Decoding::Protobuf(message) => Decoder::Protobuf(ProtobufDecoder::new(message.clone())),
            Decoding::Arrow => return None,
        };
        Some(Self { decoder, key: plan.key, max_record_bytes: source.max_record_bytes })
    }

    /// The id of the schema that this value needs and that was not learnt yet.
    pub fn schema_needed(&self, value: &[u8]) -> Option<u32> {
        match &self.decoder {
            Decoder::Avro(d) => d.schema_needed(value),
            _ => None,
        }
    }

    /// Takes the answer of the registry for a schema id; see [`crate::lane::Lane::learn_schema`].
    pub fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        if let Decoder::Avro(d) = &mut self.decoder {
            d.learn(id, answer);
        }
    }

    /// Forgets a schema id, so that it is needed again.
    pub fn forget_schema(&mut self, id: u32) {
        if let Decoder::Avro(d) = &mut self.decoder {
            d.forget(id);
        }
    }

    /// The device of a record with this value.
    ///
    /// # Errors
    /// Where the lane would make the record a dead letter before it knows whose it is, with the lane's reason.
    pub fn device<'a>(&'a mut self, value: Option<&'a [u8]>) -> Result<&'a [u8], RowError> {
        let payload = super::payload(value, self.max_record_bytes)?;
        match &mut self.decoder {
            Decoder::Json(d) => read(d, payload, self.key),
            Decoder::Avro(d) => read(d, payload, self.key),
            Decoder::Protobuf(d) => read(d, payload, self.key),
            // Invariant: `new` makes none of these.
            Decoder::Arrow(_) => Err(RowError::undecodable("a record of Arrow has no one device")),
        }
    }
}

fn read<'a, D: RowDecoder>(decoder: &'a mut D, payload: &'a [u8], key: usize) -> Result<&'a [u8], RowError> {
    decoder.decode(payload)?;
    super::device(decoder, payload, key)
}
