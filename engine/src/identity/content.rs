//! What a device that writes JSON has to sign.

use super::SignatureIn;
use super::check::cells;
use super::columns;
use super::statement::value_content;
use crate::decode::{JsonDecoder, RowDecoder, RowError};
use crate::spec::FieldSpec;
use crate::verdict::Hash32;

/// The content of a JSON reading of these fields, as a lane finds it. Where the signature stands beside the record, any bytes have
/// one.
///
/// # Errors
/// Where the lane would refuse the reading before it looks at its signature.
pub fn json_content(signature: &SignatureIn, fields: &[FieldSpec], value: &[u8]) -> Result<Hash32, RowError> {
    let SignatureIn::Field(name) = signature else { return Ok(value_content(value)) };
    let mut decoder = JsonDecoder::new(fields);
    decoder.decode(value)?;
    let mut signed: Vec<usize> = (0..fields.len()).filter(|i| fields[*i].name != *name).collect();
    signed.sort_by_key(|i| fields[*i].name.as_bytes());
    let mut out = Vec::new();
    columns::write(cells(&decoder, value, &signed, fields), &mut out);
    Ok(columns::hash(&out))
}
