//! Records of the log, proofs, notes, bundles, models and pipeline files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch::lang::{Environment, Pipeline, SourceFile};
use avouch_engine::bundle;
use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::log::{
    Coverage, HashReader, NoteSigner, TreeAppender, checkpoint_text, consistency_proof, inclusion_proof,
    parse_checkpoint_text, read_note_unverified, root, tiles_between, verify_consistency, verify_inclusion,
    verify_note,
};
use avouch_engine::reference::Reference;
use avouch_engine::verdict::{Evidence, FeatureEvidence, Hash32, LogOrigin, Verdict, VerdictRecord, score_e6};
use avouch_models::{AlgorithmConfig, Provenance, SplitConfig, TrainConfig, TrainingFrame, train};
use sha2::{Digest, Sha256};

/// Reads a kind of record, and says what it would be written as.
type Reader = fn(&[u8]) -> Option<Vec<u8>>;

const RECORDS: [Reader; 6] = [
    |b| VerdictRecord::from_bytes(b).ok().map(|x| x.to_bytes()),
    |b| DeadLetter::from_bytes(b).ok().map(|x| x.to_bytes()),
    |b| LaneEvent::from_bytes(b).ok().map(|x| x.to_bytes()),
    |b| Evidence::from_bytes(b).ok().map(|x| x.to_bytes()),
    |b| Coverage::from_bytes(b).ok().map(|x| x.to_bytes()),
    |b| Reference::from_bytes("r", b).ok().map(|x| x.to_bytes()),
];

/// The first byte says what it is read as. One record has one form.
pub fn records(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    if let Some(written) = RECORDS[usize::from(*kind) % RECORDS.len()](bytes) {
        assert_eq!(written, bytes, "what was read is written the same again");
    }
}

fn evidence() -> Evidence {
    Evidence {
        salt: [0; 32],
        device: "a".into(),
        step: "s".into(),
        topic: "t".into(),
        partition: 3,
        first_offset: 1,
        last_offset: 9,
        rows: 4,
        references: Vec::new(),
        score: 0.5,
        p_value: 0.25,
        interval: None,
        incident: None,
        label: None,
        features: vec![FeatureEvidence { name: "x".into(), value: 1.0, expected: 0.5, contribution: 0.5 }],
    }
}

pub fn record_seeds() -> Vec<Vec<u8>> {
    let tick = LaneEvent::Tick(Tick { after_offset: 7, watermark_ms: 9 }).to_bytes();
    let reference = LaneEvent::Reference { after_offset: 7, name: "devices".into(), version: [3; 32] }.to_bytes();
    let evicted = LaneEvent::Evicted { after_offset: 7, watermark_ms: 9, device_id: [4; 32], next_seq: 5 }.to_bytes();
    let coverage = Coverage { topic: "t".into(), partition: 3, from_offset: 1, to_offset: 9 }.to_bytes();
    let letter = DeadLetter {
        reason: avouch_engine::dead_letter::DeadReason::Late,
        detail: "late".into(),
        offset: 3,
        row: Some(2),
        timestamp: 1,
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        signature: Some(vec![1; 73]),
    };
    [(1, letter.to_bytes()), (2, tick), (2, reference), (2, evicted), (3, evidence().to_bytes()), (4, coverage)]
        .into_iter()
        .map(|(kind, bytes)| [&[kind], bytes.as_slice()].concat())
        .collect()
}

/// Stored hashes of a log of 600 entries, some of which are not there.
struct Hashes<'a> {
    all: &'a [Hash32],
    have: usize,
}

impl HashReader for Hashes<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash32>, avouch_engine::log::LogError> {
        self.all[..self.have].read_hashes(indexes)
    }
}

/// Sizes, indexes, proofs and notes of an attacker's choice.
pub fn log(data: &[u8]) {
    static HASHES: LazyLock<Vec<Hash32>> = LazyLock::new(|| {
        let (mut tree, mut stored) = (TreeAppender::new(), Vec::new());
        for n in 0..600u32 {
            tree.append(&Sha256::digest(n.to_le_bytes()).into(), &mut stored);
        }
        stored.chunks_exact(32).map(|h| h.try_into().unwrap_or_default()).collect()
    });
    let _ = parse_checkpoint_text(data);
    let _ = read_note_unverified(data);
    let _ = verify_note(data, std::str::from_utf8(data).unwrap_or_default());
    let word = |n: usize| {
        let mut out = [0; 8];
        if let Some(bytes) = data.get(n * 8..n * 8 + 8) {
            out.copy_from_slice(bytes);
        }
        u64::from_le_bytes(out)
    };
    let hashes: Vec<Hash32> =
        data.get(32..).unwrap_or_default().chunks_exact(32).map(|h| h.try_into().unwrap_or_default()).collect();
    let (a, b) = (word(0), word(1));
    let [first, second] = [0, 1].map(|n| hashes.get(n).copied().unwrap_or_default());
    let _ = verify_inclusion(&first, a, b, hashes.get(2..).unwrap_or_default(), &second);
    let _ = verify_consistency(a, b, hashes.get(2..).unwrap_or_default(), &first, &second);
    // A log that lacks hashes says so; one that has them proves what it holds.
    let reader = Hashes { all: &HASHES, have: (word(2) as usize).min(HASHES.len()) };
    let _ = root(a, &reader);
    let _ = inclusion_proof(a, b, &reader);
    let _ = consistency_proof(a, b, &reader);
    let (small, large) = (a % 601, b % 601);
    for tile in tiles_between(small.min(large), small.max(large)) {
        if let Ok(bytes) = tile.read(&reader) {
            assert_eq!(bytes.len() as u64, tile.width() * 32);
        }
    }
    if reader.have == HASHES.len() && small < large {
        let entry = Sha256::digest((small as u32).to_le_bytes()).into();
        let whole = root(large, &reader);
        let proved = inclusion_proof(small, large, &reader)
            .and_then(|proof| verify_inclusion(&entry, small, large, &proof, &whole.clone()?));
        assert!(proved.is_ok(), "entry {small} of {large}");
        let grown = consistency_proof(small, large, &reader)
            .and_then(|proof| verify_consistency(small, large, &proof, &root(small, &reader)?, &whole?));
        assert!(grown.is_ok(), "{small} to {large}");
    }
}

pub fn log_seeds() -> Vec<Vec<u8>> {
    let origin = LogOrigin::new("p", 0);
    let text = checkpoint_text(&origin, 42, &[5; 32]).unwrap_or_default();
    let note = NoteSigner::from_seed(&origin, &[3; 32]).and_then(|s| s.sign(&text)).unwrap_or_default();
    let words = |a: u64, b: u64, c: u64| -> Vec<u8> {
        [a, b, c, 0].iter().flat_map(|w| w.to_le_bytes()).chain([7; 32 * 6]).collect()
    };
    vec![text, note, words(3, 500, u64::MAX), words(300, 600, 400)]
}

/// A bundle's files, divided by byte 30, in the order they are required.
pub fn bundle(data: &[u8]) {
    let files: bundle::Files = bundle::file::REQUIRED
        .iter()
        .zip(data.split(|b| *b == 0x1e))
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect();
    if let Ok(bundle) = bundle::parse(&files) {
        let _ = bundle::verify_offline(&bundle, None);
    }
}

pub fn bundle_seeds() -> Vec<Vec<u8>> {
    let (model, pipeline) = (b"model".to_vec(), b"{}".to_vec());
    let evidence = evidence();
    let verdict = Verdict {
        device_id: [1; 32],
        seq: 4,
        window_start: 1_767_225_600_000,
        window_end: 1_767_225_660_000,
        model_hash: Sha256::digest(&model).into(),
        config_hash: Sha256::digest(&pipeline).into(),
        input_digest: [2; 32],
        score_e6: score_e6(evidence.score),
        severity: 2,
        class: 1,
        evidence_hash: evidence.hash(),
        salt: [3; 32],
    };
    let (mut tree, mut stored) = (TreeAppender::new(), Vec::new());
    for n in 0..9u64 {
        let entry = if n == 4 { verdict.struct_hash() } else { Sha256::digest(n.to_be_bytes()).into() };
        tree.append(&entry, &mut stored);
    }
    let hashes: Vec<Hash32> = stored.chunks_exact(32).map(|h| h.try_into().unwrap_or_default()).collect();
    let origin = LogOrigin::new("p", 3);
    let coverage = Coverage { topic: "t".into(), partition: 3, from_offset: 0, to_offset: 20 };
    let checkpoint = bundle::SignedCheckpoint {
        log_id: bundle::chain_log_id(&[5; 20], &origin),
        old_size: 2,
        new_size: 9,
        old_root: [4; 32],
        new_root: tree.root(),
        data_commitment: coverage.commitment(),
        issued_at: 1_767_225_700_123,
        chain_id: 31_337,
        contract: [6; 20],
        owner: [5; 20],
        signer: [7; 20],
        signature: vec![8; 65],
    };
    let record = VerdictRecord { index: 4, verdict, evidence };
    let inclusion = inclusion_proof(4, 9, hashes.as_slice()).unwrap_or_default();
    let parts = bundle::Parts {
        origin: &origin,
        record: &record,
        inclusion: &inclusion,
        checkpoint: &checkpoint,
        coverage: &coverage,
        model: &model,
        pipeline: &pipeline,
    };
    match bundle::build(&parts, &[]) {
        Ok(files) => {
            let required = bundle::file::REQUIRED.iter().map(|name| files.get(*name).cloned().unwrap_or_default());
            vec![required.collect::<Vec<_>>().join(&0x1e)]
        }
        Err(e) => panic!("a bundle to begin with: {e}"),
    }
}

/// A model file, without the SHA-256 at its end.
pub fn model(data: &[u8]) {
    let sealed = [data, &Sha256::digest(data)].concat();
    if let Ok(scorer) = avouch_models::load(&sealed) {
        let n = scorer.features().len();
        for x in [0.0, 1.5, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE] {
            let (mut expected, mut contributions) = (vec![0.0; n], vec![0.0; n]);
            let _ = scorer.score("a", &vec![x; n], &mut expected, &mut contributions);
        }
    }
}

pub fn model_seeds() -> Vec<Vec<u8>> {
    let column = |f: fn(i32) -> f64| Arc::new(Float64Array::from_iter_values((0..100).map(f))) as ArrayRef;
    let trained = |algorithm: &str| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let batch = RecordBatch::try_from_iter([
            ("device", Arc::new(StringArray::from(vec!["a"; 100])) as ArrayRef),
            ("window_end", Arc::new(Int64Array::from_iter_values((1..=100).map(|i| i * 10_000)))),
            ("x", column(|i| 60.0 + f64::from(i % 7))),
            ("y", column(|i| 0.1 * f64::from(i % 7) + 0.01 * f64::from(i % 3))),
        ])?;
        let features = ["x".to_owned(), "y".to_owned()];
        let frame = TrainingFrame::from_batches(&features, [&batch])?;
        let algorithm: AlgorithmConfig = serde_json::from_str(algorithm)?;
        let config = TrainConfig { algorithm, split: SplitConfig::default(), provenance: Provenance::default() };
        Ok(train(&frame, &config)?.bytes)
    };
    [
        r#"{"kind": "gaussian-mixture", "components": 2}"#,
        r#"{"kind": "k-means", "clusters": 2}"#,
        r#"{"kind": "mewma", "scales": 2}"#,
        r#"{"kind": "one-class-svm"}"#,
        r#"{"kind": "t2-q", "variance": 0.95}"#,
    ]
    .into_iter()
    .map(|algorithm| match trained(algorithm) {
        Ok(bytes) => bytes[..bytes.len() - 32].to_vec(),
        Err(e) => panic!("a model to begin with: {e}"),
    })
    .collect()
}

/// A machine without files and with one variable.
struct Nowhere;

impl Environment for Nowhere {
    fn var(&self, name: &str) -> Option<String> {
        (name == "KAFKA").then(|| "localhost:9092".into())
    }
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// The text of a pipeline file.
pub fn pipeline(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Pipeline::read(Arc::new(SourceFile::new("p.toml", text)), &Nowhere) {
        Ok(pipeline) => {
            let again = Pipeline::read(Arc::new(SourceFile::new("q.toml", text)), &Nowhere);
            assert_eq!(again.ok().map(|p| p.canonical.json), Some(pipeline.canonical.json));
        }
        Err(diags) => assert!(!diags.to_string().is_empty()),
    }
}

pub fn pipeline_seeds() -> Vec<Vec<u8>> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/tests/check/cases");
    let files: BTreeMap<_, _> = std::fs::read_dir(cases)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "toml"))
        .filter_map(|e| Some((e.path(), std::fs::read(e.path()).ok()?)))
        .collect();
    files.into_values().collect()
}
