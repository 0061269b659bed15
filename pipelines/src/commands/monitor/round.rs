//! One look at the log and the chain, and what is remembered between two.

use std::collections::BTreeMap;

use avouch_connectors::ethereum::{
    ChainReader, Endpoint, EthereumError, ModelOnChain, ModelRegistry, RpcOptions, log_id,
};
use avouch_connectors::published::{PublishedAt, PublishedError};
use avouch_engine::log::{PublishedLog, TreeHead, leaf_hash, verify_consistency};
use avouch_engine::verdict::{Hash32, NO_MODEL};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::MonitorArgs;
use super::verdicts::{Delivered, Verdicts};
use crate::lang::{format_duration, hex_bytes};
use crate::runtime::hex;

/// Blocks searched at once.
const SPAN: u64 = 10_000;

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Two histories: the log was rewritten, or is not the one that was anchored.
    Fork,
    /// A part of the log is missing, or does not belong to its signed head.
    Gap,
    /// Published and not anchored, for longer than was promised.
    Late,
    /// Anchored and not published, for longer than was promised.
    Withheld,
    /// What was delivered is no verdict, or does not stand in the log.
    Verdict,
    /// A verdict of a device is missing.
    Sequence,
    /// A model decided that nobody had activated.
    Model,
    /// The log or the chain cannot be read.
    Unreachable,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fork => "fork",
            Kind::Gap => "gap",
            Kind::Late => "late",
            Kind::Withheld => "withheld",
            Kind::Verdict => "verdict",
            Kind::Sequence => "sequence",
            Kind::Model => "model",
            Kind::Unreachable => "unreachable",
        }
    }
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub alarms: BTreeMap<Kind, String>,
    /// Where the log stands.
    pub said: String,
}

/// What is remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Memory {
    /// The newest head that was found to extend those before.
    size: u64,
    root: String,
    /// The first block whose anchors were not looked at.
    next_block: u64,
    /// Anchors beyond what is published: size and root.
    beyond: Vec<(u64, String)>,
    /// Since when something beyond the published head is anchored, milliseconds.
    withheld_since: Option<i64>,
    /// Up to which size what is published waits for an anchor, and since when.
    waiting: Option<(u64, i64)>,
    /// Contradictions once seen stay: they are evidence, whatever is shown afterwards.
    evidence: BTreeMap<String, String>,
}

/// Watches one log.
pub(super) struct Watcher {
    args: MonitorArgs,
    log: PublishedAt,
    memory: Memory,
    verdicts: Option<Verdicts>,
    models: BTreeMap<Hash32, Option<ModelOnChain>>,
}

impl Watcher {
    pub fn new(args: MonitorArgs, log: PublishedAt) -> Result<Self, String> {
        let mut memory = Memory { next_block: args.from_block, ..Memory::default() };
        if let Some(path) = &args.state {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    memory = serde_json::from_str(&text).map_err(|e| {
                        format!("{}: {e}; it is not what a monitor remembers: move it away", path.display())
                    })?;
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("{}: {e}", path.display())),
            }
        }
        let verdicts = args.verdicts.clone().map(Verdicts::new);
        Ok(Self { args, log, memory, verdicts, models: BTreeMap::new() })
    }

    /// Looks once. An error is one of this machine, not of log or chain.
    pub async fn round(&mut self, now_ms: i64) -> Result<Round, String> {
        let mut alarms = BTreeMap::new();
        let mut said = format!("{}: ", self.log.shown());
        match self.log.head().await {
            Err(e) => {
                said.push_str("no head");
                self.note(&mut alarms, &e);
            }
            Ok((_, head)) => {
                let mut published = PublishedLog::new(head.clone());
                said.push_str(&format!("{} records", head.size));
                self.extends(&head, &mut published, &mut alarms).await;
                self.chain(&head, &mut published, now_ms, &mut alarms, &mut said).await;
                self.verdicts(&head, &mut published, &mut alarms).await;
            }
        }
        for (kind, what) in &self.memory.evidence {
            let kind = match kind.as_str() {
                "fork" => Kind::Fork,
                "verdict" => Kind::Verdict,
                "sequence" => Kind::Sequence,
                _ => Kind::Model,
            };
            alarms.entry(kind).or_insert_with(|| what.clone());
        }
        self.save()?;
        Ok(Round { alarms, said })
    }

    /// An error of the log: a gap, or that it cannot be reached.
    fn note(&self, alarms: &mut BTreeMap<Kind, String>, e: &PublishedError) {
        let kind = if e.is_evidence() { Kind::Gap } else { Kind::Unreachable };
        alarms.entry(kind).or_insert_with(|| e.to_string());
    }

    /// A contradiction, which stays.
    fn evidence(&mut self, kind: Kind, what: String) {
        self.memory.evidence.entry(kind.name().to_owned()).or_insert(what);
    }

    async fn extends(&mut self, head: &TreeHead, published: &mut PublishedLog, alarms: &mut BTreeMap<Kind, String>) {
        let (old, new) = (self.memory.size, head.size);
        let known: Hash32 = hex_bytes(&self.memory.root).unwrap_or_default();
        if new < old {
            self.evidence(Kind::Fork, format!("its signed head had {old} records, and now has {new}"));
            return;
        }
        if new == old && old > 0 && head.root != known {
            let (a, b) = (hex(&known), hex(&head.root));
            self.evidence(Kind::Fork, format!("two heads of {old} records are signed, with the roots {a} and {b}"));
            return;
        }
        if new == old {
            return;
        }
        let proof = match self.log.consistency(published, old).await {
            Ok(proof) => proof,
            Err(e) => return self.note(alarms, &e),
        };
        let known = if old == 0 { [0; 32] } else { known };
        if verify_consistency(old, new, &proof, &known, &head.root).is_err() {
            let what = format!("its head of {new} records does not extend that of {old} records which was seen before");
            self.evidence(Kind::Fork, what);
            return;
        }
        (self.memory.size, self.memory.root) = (new, hex(&head.root));
    }

    async fn chain(
        &mut self,
        head: &TreeHead,
        published: &mut PublishedLog,
        now_ms: i64,
        alarms: &mut BTreeMap<Kind, String>,
        said: &mut String,
    ) {
        if let Err(e) = self.ask_chain(head, published, now_ms, alarms, said).await {
            alarms.entry(Kind::Unreachable).or_insert_with(|| e.to_string());
        }
    }

    async fn ask_chain(
        &mut self,
        head: &TreeHead,
        published: &mut PublishedLog,
        now_ms: i64,
        alarms: &mut BTreeMap<Kind, String>,
        said: &mut String,
    ) -> Result<(), EthereumError> {
        let (false, Some(contract), Some(owner)) = (self.args.rpc.is_empty(), self.args.contract, self.args.owner)
        else {
            return Ok(());
        };
        let endpoint = Endpoint::unanimous(&self.args.rpc, RpcOptions::default())?;
        let chain = ChainReader::over(endpoint, None, contract).await?;
        let id = log_id(owner, &head.origin.log_id());
        let heads = chain.heads(&id).await?;
        said.push_str(&format!(", {} anchored, {} of them finally", heads.latest.size, heads.finalized.size));
        // Only what is final is remembered; the newest head is compared as well, each time.
        let last = chain.endpoint().final_block().await?;
        let mut due = std::mem::take(&mut self.memory.beyond);
        while self.memory.next_block <= last {
            let to = self.memory.next_block.saturating_add(SPAN - 1).min(last);
            for anchor in chain.anchors(&id, None, self.memory.next_block, to).await? {
                due.push((anchor.size, hex(&anchor.root)));
            }
            self.memory.next_block = to + 1;
        }
        if heads.latest.size > 0 && !due.iter().any(|(size, _)| *size == heads.latest.size) {
            due.push((heads.latest.size, hex(&heads.latest.root)));
        }
        let mut beyond = Vec::new();
        for (size, root) in due {
            if size > head.size {
                beyond.push((size, root));
                continue;
            }
            match self.log.root(published, size).await {
                Ok(found) if hex(&found) == root => {}
                Ok(found) => {
                    let found = hex(&found);
                    let what = format!("at size {size} the contract has the root {root}, the published log {found}");
                    self.evidence(Kind::Fork, what);
                }
                Err(e) => {
                    self.note(alarms, &e);
                    beyond.push((size, root));
                }
            }
        }
        let ahead = beyond.iter().map(|(size, _)| *size).max().filter(|size| *size > head.size);
        // A reorganisation may take the newest head back.
        beyond.retain(|(size, _)| *size <= heads.finalized.size);
        self.memory.beyond = beyond;
        let promise = self.args.promise;
        let waited = |since: i64| format_duration(now_ms.saturating_sub(since).max(0));
        self.memory.withheld_since = ahead.map(|_| self.memory.withheld_since.unwrap_or(now_ms));
        if let (Some(ahead), Some(since)) = (ahead, self.memory.withheld_since)
            && now_ms.saturating_sub(since) > promise
        {
            let what =
                format!("{ahead} records are anchored, but only {} published, for {} now", head.size, waited(since));
            alarms.insert(Kind::Withheld, what);
        }
        let anchored = heads.latest.size;
        self.memory.waiting = match self.memory.waiting {
            Some((size, since)) if anchored < size => Some((size, since)),
            _ if anchored < head.size => Some((head.size, now_ms)),
            _ => None,
        };
        if let Some((size, since)) = self.memory.waiting
            && now_ms.saturating_sub(since) > promise
        {
            let what = format!("{size} records are published, but only {anchored} anchored, for {} now", waited(since));
            alarms.insert(Kind::Late, what);
        }
        Ok(())
    }

    async fn verdicts(&mut self, head: &TreeHead, published: &mut PublishedLog, alarms: &mut BTreeMap<Kind, String>) {
        let Some(mut verdicts) = self.verdicts.take() else { return };
        match verdicts.read(head.origin.as_str()) {
            Ok(None) => {}
            // Whoever writes the file must not be able to end the watch.
            Ok(Some(wrong)) => self.evidence(Kind::Verdict, wrong),
            Err(e) => {
                alarms.entry(Kind::Unreachable).or_insert(e);
            }
        }
        let (due, later): (Vec<Delivered>, Vec<Delivered>) =
            verdicts.waiting.drain(..).partition(|d| d.index < head.size);
        verdicts.waiting = later;
        for d in due {
            let at = format!("the delivered verdict {}", d.index);
            match self.log.leaf(published, d.index).await {
                Ok(leaf) if leaf == leaf_hash(&d.entry) => {}
                Ok(_) => self.evidence(Kind::Verdict, format!("{at} is not the one that stands there in the log")),
                Err(e) => {
                    self.note(alarms, &e);
                    verdicts.waiting.push(d);
                    continue;
                }
            }
            if let Some(why) = verdicts.follows(&d) {
                self.evidence(Kind::Sequence, format!("{at}: {why}"));
            }
            match self.may_decide(&d).await {
                Ok(None) => {}
                Ok(Some(why)) => self.evidence(Kind::Model, format!("{at}: {why}")),
                Err(e) => {
                    alarms.entry(Kind::Unreachable).or_insert_with(|| e.to_string());
                    verdicts.waiting.push(d);
                }
            }
        }
        self.verdicts = Some(verdicts);
    }

    /// Why the model may not have decided this.
    async fn may_decide(&mut self, d: &Delivered) -> Result<Option<String>, EthereumError> {
        let (Some(registry), Some(owner)) = (self.args.registry, self.args.registry_owner) else {
            return Ok(None);
        };
        if d.model == NO_MODEL {
            return Ok(None);
        }
        let when = d.window_end / 1000;
        let known = self.models.get(&d.model).copied();
        // What was not active may be by now; what was may have been revoked since, which says nothing of earlier windows.
        let found = match known {
            Some(found) if found.is_some_and(|m| m.is_active(when)) => found,
            _ => {
                let name: Hash32 = Sha256::digest(&self.args.registry_name).into();
                let endpoint = Endpoint::unanimous(&self.args.rpc, RpcOptions::default())?;
                let registry = ModelRegistry::over(endpoint, None, registry, owner, name).await?;
                let found = registry.model(&d.model).await?;
                self.models.insert(d.model, found);
                found
            }
        };
        let model = hex(&d.model);
        Ok(match found {
            None => Some(format!("model {model} was never proposed")),
            Some(m) if m.window.is_none() => Some(format!("model {model} was never activated")),
            Some(m) if !m.is_active(when) => Some(format!("model {model} was not active at the end of its window")),
            Some(_) => None,
        })
    }

    fn save(&self) -> Result<(), String> {
        let Some(path) = &self.args.state else { return Ok(()) };
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = serde_json::to_string_pretty(&self.memory).map_err(|e| fail(&e))?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text + "\n").map_err(|e| fail(&e))?;
        std::fs::rename(&temporary, path).map_err(|e| fail(&e))
    }
}
