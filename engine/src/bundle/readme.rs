//! The bundle's README.txt.

use super::json::{account_text, hex, utc};
use super::{Inclusion, SignedCheckpoint};
use crate::verdict::{VERDICT_TYPE, Verdict, verdict_type_hash};

/// The thirteen words of the struct hash's preimage, as `cast abi-encode` takes them.
fn words(v: &Verdict) -> String {
    let parts = [
        hex(&verdict_type_hash()),
        hex(&v.device_id),
        v.seq.to_string(),
        v.window_start.to_string(),
        v.window_end.to_string(),
        hex(&v.model_hash),
        hex(&v.config_hash),
        hex(&v.input_digest),
        v.score_e6.to_string(),
        v.severity.to_string(),
        v.class.to_string(),
        hex(&v.evidence_hash),
        hex(&v.salt),
    ];
    parts.join(" \\\n        ")
}

pub(super) fn render(v: &Verdict, i: &Inclusion, c: &SignedCheckpoint) -> String {
    let words = words(v);
    let path: Vec<String> = i.path.iter().map(|h| hex(h)).collect();
    let (contract, log_id, entry) = (account_text(&c.contract), hex(&c.log_id), hex(&i.entry));
    let (index, size, chain, path) = (i.index, i.size, c.chain_id, path.join(","));
    let (root, signed) = (hex(&c.new_root), utc(c.issued_at));
    format!(
        r#"EVIDENCE BUNDLE OF ONE VERDICT

What is in it
  verdict.json             the decision: twelve fields (an EIP-712 struct), the log it is in, and its index there;
                           "reads" repeats some of them for people
  evidence.json            what it rests on: device, source, rows, features, and what each contributed
  disclosed.bin            the same as canonical bytes, part by part, each with the salt that its commitment takes
  evidence.bin             the name of every part and a commitment to it, SHA-256 of salt and value; evidenceHash is
                           the SHA-256 of this file, and stays so when parts are kept back
  model                    the model file; modelHash is its SHA-256 (of a label, which a person gave, it is empty and
                           modelHash zero)
  pipeline.canonical.json  the configuration that was running; configHash is its SHA-256
  inclusion.json           the RFC 9162 proof (SHA-256) that the verdict is in the log
  checkpoint.json          the log's size and root, signed by its operator and anchored on chain
  coverage.json            which run of source offsets the checkpoint answers for
  coverage.bin             the same as canonical bytes; dataCommitment is its SHA-256

How to check it with Avouch
  avouch verify DIR                  everything that needs no network
  avouch verify DIR --rpc URL        and that the chain has the checkpoint

How to check it without Avouch
  sha256sum model pipeline.canonical.json evidence.bin coverage.bin
      These are modelHash, configHash and evidenceHash of verdict.json, and dataCommitment of checkpoint.json.
  The entry is keccak256 of the type's hash and the twelve fields of verdict.json, a 32-byte word each. The first word
  below is keccak256 of the text
      {VERDICT_TYPE}
  and with Foundry's cast
      cast keccak $(cast abi-encode -- \
        "f(bytes32,bytes32,uint64,uint64,uint64,bytes32,bytes32,bytes32,int64,uint8,uint16,bytes32,bytes32)" \
        {words})
  must print
      {entry}
  Ask chain {chain} whether that entry is in the log ($RPC is any endpoint of that chain):
      cast call {contract} \
        "verifyInclusion(bytes32,bytes32,uint64,uint64,bytes32[])(bool)" \
        {log_id} \
        {entry} \
        {index} {size} \
        "[{path}]" \
        --rpc-url $RPC
      and when it was anchored:
      cast call {contract} \
        "checkpointOf(bytes32,uint64)((uint64,bytes32,uint64,uint64,uint64))" {log_id} {size} --rpc-url $RPC
      The root must be {root};
      the fourth number is the time of the block, in seconds since 1970. The operator says it signed at
      {signed}; only the block's time is witnessed.
      The contract answers for the last 64 checkpoints of a log. For older ones look up the event CheckpointAdvanced
      of that log and size.

What this does not prove
  That a sensor told the truth, or that the model is right. That the contract's address and the log's owner are
  those of whom you think: compare them with ones you have from elsewhere.
"#
    )
}
