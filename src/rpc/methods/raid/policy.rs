//! Consistency policies as clients name them.

use crate::md::NewPolicy;
use crate::rpc::RpcError;

/// The policy of this name, which is mdadm's.
///
/// # Errors
/// There is none, with those that there are.
fn by_name(name: &str) -> Result<NewPolicy, RpcError> {
    match name {
        "resync" => Ok(NewPolicy::Resync),
        "bitmap" => Ok(NewPolicy::Bitmap { chunk_bytes: None }),
        "ppl" => Ok(NewPolicy::Ppl),
        _ => Err(RpcError::invalid_params(format!(
            "consistency_policy: there is no {name:?}; use one of resync, bitmap, ppl"
        ))),
    }
}

/// The policy of this name, with a bitmap of this chunk if one is given.
///
/// # Errors
/// As [`by_name`]; a chunk that is not possible, or where there is no bitmap.
pub fn wanted(name: &str, chunk_kb: Option<u32>) -> Result<NewPolicy, RpcError> {
    let given = chunk_kb.map(chunk_bytes).transpose()?;
    match (by_name(name)?, given) {
        (policy, None) => Ok(policy),
        (NewPolicy::Bitmap { .. }, chunk_bytes) => Ok(NewPolicy::Bitmap { chunk_bytes }),
        (_, Some(_)) => Err(RpcError::invalid_params(
            "bitmap_chunk_kb: means something only with consistency_policy: bitmap",
        )),
    }
}

/// Bytes of a member for each bit of a bitmap.
///
/// # Errors
/// It is no power of two from 4 KiB to 1 GiB.
fn chunk_bytes(kb: u32) -> Result<u32, RpcError> {
    if kb.is_power_of_two() && (4..=1 << 20).contains(&kb) {
        return Ok(kb * 1024);
    }
    Err(RpcError::invalid_params(format!(
        "bitmap_chunk_kb: {kb} is not possible; use a power of two from 4 to 1048576"
    )))
}
