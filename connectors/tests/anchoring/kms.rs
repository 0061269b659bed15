//! Operators' keys in AWS KMS: moto's stand-in for it (`kms_server.py` says what is added to it) and anvil.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::chain::{NAME, World, key, quick};
use super::moto;
use super::proxy::{Fate, Proxy};
use crate::ethereum::{
    AnchorWriter, EthereumError, KmsAction, KmsError, KmsOptions, OperatorKey, WriterConfig, register_log, set_signer,
};

const REGION: &str = "eu-central-1";

/// A running KMS; killed when dropped.
struct Kms {
    child: Child,
    url: String,
}

impl Drop for Kms {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer, and its status.
type Answer = (u16, Value);

/// A request as it stands, and its answer.
async fn exchange(address: &str, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            let length = text.lines().find_map(|l| l.strip_prefix("content-length:")).unwrap();
            let body = &answer[end + 4..];
            if body.len() >= length.trim().parse().unwrap() {
                let status = text.split(' ').nth(1).unwrap().parse().unwrap();
                return Ok((status, serde_json::from_slice(body).unwrap_or_default()));
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Kms {
    async fn start() -> Option<Self> {
        let (python, port) = moto::python_and_port()?;
        let child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/anchoring/kms_server.py"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let kms = Self { child, url: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        while kms.try_admin("ListKeys", json!({})).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "moto does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(kms)
    }

    async fn try_admin(&self, action: &str, request: Value) -> std::io::Result<Answer> {
        let (address, body) = (self.url.trim_start_matches("http://"), request.to_string());
        // What only these tests ask is not checked for who asks.
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: TrentService.{action}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/kms/aws4_request, SignedHeaders=host, Signature=0\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        exchange(address, format!("{head}{body}").as_bytes()).await
    }

    /// What the owner of the keys does, by other tools than ours.
    async fn admin(&self, action: &str, request: Value) -> Value {
        let (status, answer) = self.try_admin(action, request).await.unwrap();
        assert_eq!(status, 200, "{action}: {answer}");
        answer
    }

    /// A fresh key's id.
    async fn create(&self, spec: &str) -> String {
        let made = self.admin("CreateKey", json!({ "KeySpec": spec, "KeyUsage": "SIGN_VERIFY" })).await;
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    fn options(&self, key: &str) -> KmsOptions {
        KmsOptions {
            region: Some(REGION.to_owned()),
            endpoint: Some(self.url.clone()),
            access_key: Some("test".to_owned()),
            secret_key: Some("test".to_owned()),
            ..KmsOptions::new(key)
        }
    }

    async fn open(&self, key: &str) -> OperatorKey {
        OperatorKey::from_kms(self.options(key)).await.unwrap()
    }
}

/// The error, which must be one of KMS.
fn kms_error<T: std::fmt::Debug>(result: Result<T, EthereumError>) -> KmsError {
    match result {
        Err(EthereumError::Kms(error)) => *error,
        other => panic!("{other:?}"),
    }
}

async fn fund(world: &World, key: &OperatorKey) {
    world.anvil.rpc("anvil_setBalance", json!([key.address(), "0x56bc75e2d63100000"])).await;
}

/// Where the writer stops for good, and another one goes on.
const NOWHERE: u8 = 0;
const BEFORE_SENDING: u8 = 1;
const AFTER_SENDING: u8 = 2;
const BEFORE_THE_RECEIPT: u8 = 3;

/// Anchors with restarts at every step. What is sent after a restart is what was signed before it.
async fn anchor_with_restarts(kms: &Kms, world: &mut World, id: &str, payer: Option<&str>) {
    let trap = Arc::new(AtomicU8::new(NOWHERE));
    let armed = trap.clone();
    let proxy = Proxy::start(&world.anvil.url, move |method, _, _| {
        let fate = match (armed.load(Ordering::SeqCst), method) {
            (BEFORE_SENDING, "eth_sendRawTransaction") => Fate::Swallow,
            (AFTER_SENDING, "eth_sendRawTransaction") => Fate::LoseAnswer,
            (BEFORE_THE_RECEIPT, "eth_sendRawTransaction") => {
                armed.store(BEFORE_THE_RECEIPT + 1, Ordering::SeqCst);
                Fate::Pass
            }
            (step, "eth_getTransactionReceipt") if step == BEFORE_THE_RECEIPT + 1 => Fate::Swallow,
            _ => Fate::Pass,
        };
        if !matches!(fate, Fate::Pass) {
            armed.store(NOWHERE, Ordering::SeqCst);
        }
        fate
    })
    .await;
    let (mut size, mut expected, mut sent_before) = (0, Vec::new(), 0);
    for i in 0..12u64 {
        let step = (i % 4) as u8;
        // Every process opens the key anew.
        let config = || async {
            let payer = match payer {
                Some(id) => kms.open(id).await,
                None => key(),
            };
            WriterConfig { signer: kms.open(id).await, payer, ..world.config(&proxy.url, quick()) }
        };
        let config = (config().await, config().await);
        let next = size + 1 + i;
        let mut writer = AnchorWriter::open(config.0).await.unwrap();
        if step != NOWHERE {
            trap.store(step, Ordering::SeqCst);
            tokio::select! {
                done = world.advance(&mut writer, size, next) => panic!("step {step} was not reached: {done:?}"),
                () = proxy.stuck() => {}
            }
            assert_eq!(writer.pending(), 1);
            drop(writer);
            writer = AnchorWriter::open(config.1).await.unwrap();
            let settled = writer.recover().await.unwrap();
            assert_eq!(settled.iter().map(|a| a.size).collect::<Vec<_>>(), [next], "step {step}");
        }
        let anchored = world.advance(&mut writer, size, next).await.unwrap();
        assert_eq!((anchored.size, anchored.root), (next, world.log.root(next)));
        let sent = proxy.requests("eth_sendRawTransaction").split_off(sent_before);
        assert!(sent.iter().all(|raw| *raw == sent[0]), "step {step}: another transaction was signed for it");
        assert!(step != BEFORE_SENDING || sent.len() == 2, "it was sent before and after the restart");
        sent_before += sent.len();
        expected.push(next);
        size = next;
    }
    assert_eq!(world.anchored_sizes().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_signed_in_kms_and_paid_for_by_a_key_here() {
    let (Some(kms), Some(mut world)) = (Kms::start().await, World::new(&[]).await) else { return };
    let id = kms.create("ECC_SECG_P256K1").await;
    let signer = kms.open(&id).await;
    assert!(format!("{signer:?}").contains(&id), "{signer:?}");
    set_signer(&world.reader().await, &key(), &world.log_id, signer.address()).await.unwrap();

    // Two signatures of one hash differ, and both are the account's.
    let (checkpoint, _) = world.step(0, 3);
    let first = signer.sign_checkpoint(&checkpoint, &world.domain).await.unwrap();
    let second = signer.sign_checkpoint(&checkpoint, &world.domain).await.unwrap();
    assert_ne!(first, second);
    for signature in [first, second] {
        checkpoint.verify(&world.domain, &signature, signer.address()).unwrap();
    }
    anchor_with_restarts(&kms, &mut world, &id, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_kms_registers_a_log_signs_and_pays() {
    let (Some(kms), Some(mut world)) = (Kms::start().await, World::new(&[]).await) else { return };
    let id = kms.create("ECC_SECG_P256K1").await;
    kms.admin("CreateAlias", json!({ "AliasName": "alias/operator", "TargetKeyId": id })).await;
    let operator = kms.open("alias/operator").await;
    assert_eq!(operator.address(), kms.open(&id).await.address());
    let error = register_log(&world.reader().await, &operator, &NAME, operator.address()).await.unwrap_err();
    assert!(matches!(error, EthereumError::Underfunded { .. }), "{error}");
    fund(&world, &operator).await;
    let registered = register_log(&world.reader().await, &operator, &NAME, operator.address()).await.unwrap();
    assert_eq!((registered.owner, registered.signer), (operator.address(), operator.address()));
    world.log_id = registered.log_id;
    anchor_with_restarts(&kms, &mut world, "alias/operator", Some(&id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_are_refused_before_anything_is_signed() {
    let Some(kms) = Kms::start().await else { return };
    let open = |options: KmsOptions| async { kms_error(OperatorKey::from_kms(options).await) };

    let error = open(kms.options("alias/nobody")).await;
    assert!(matches!(error, KmsError::NotFound { .. }) && !error.retryable(), "{error}");
    for spec in ["ECC_NIST_P256", "RSA_2048"] {
        let error = open(kms.options(&kms.create(spec).await)).await;
        assert!(matches!(&error, KmsError::WrongSpec { found, .. } if found.contains(spec)), "{error}");
        assert!(error.to_string().contains("need ECC_SECG_P256K1 for SIGN_VERIFY"), "{error}");
    }
    let good = kms.create("ECC_SECG_P256K1").await;
    let error = open(KmsOptions { secret_key: Some("wrong".into()), ..kms.options(&good) }).await;
    assert!(matches!(&error, KmsError::BadCredentials { code, .. } if code == "InvalidSignatureException"), "{error}");
    let error = open(KmsOptions { access_key: Some("nobody".into()), ..kms.options(&good) }).await;
    assert!(matches!(error, KmsError::BadCredentials { .. }), "{error}");
    let error = open(KmsOptions { access_key: Some("test\n".into()), ..kms.options(&good) }).await;
    assert!(matches!(error, KmsError::NoCredentials { .. }) && error.to_string().contains("blanks"), "{error}");

    let policy = json!({ "Statement": [{ "Effect": "Deny", "Action": ["kms:GetPublicKey"], "Resource": "*" }] });
    kms.admin("PutKeyPolicy", json!({ "KeyId": good, "PolicyName": "default", "Policy": policy.to_string() })).await;
    let error = open(kms.options(&good)).await;
    assert!(matches!(error, KmsError::Denied { action: KmsAction::GetPublicKey, .. }) && !error.retryable(), "{error}");

    // Nobody there: it is tried for as long as the budget lasts, and no longer.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let budget = Duration::from_millis(600);
    let away = KmsOptions { endpoint: Some(format!("http://{nobody}")), budget, ..kms.options(&good) };
    let began = Instant::now();
    let error = open(away).await;
    assert!(matches!(error, KmsError::Unreachable { .. }) && error.retryable(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_no_longer_sign_says_so_and_leaves_nothing_behind() {
    let (Some(kms), Some(mut world)) = (Kms::start().await, World::new(&[]).await) else { return };
    let (id, other) = (kms.create("ECC_SECG_P256K1").await, kms.create("ECC_SECG_P256K1").await);
    kms.admin("CreateAlias", json!({ "AliasName": "alias/operator", "TargetKeyId": id })).await;
    let operator = kms.open("alias/operator").await;
    fund(&world, &operator).await;
    world.log_id = register_log(&world.reader().await, &operator, &NAME, operator.address()).await.unwrap().log_id;
    let config = WriterConfig { signer: operator.clone(), payer: operator, ..world.config(&world.anvil.url, quick()) };
    let mut writer = AnchorWriter::open(config).await.unwrap();
    world.advance(&mut writer, 0, 4).await.unwrap();

    kms.admin("DisableKey", json!({ "KeyId": id })).await;
    let error = kms_error(world.advance(&mut writer, 4, 9).await);
    assert!(matches!(error, KmsError::NotEnabled { .. }) && !error.retryable(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("key alias/operator") && text.contains("is disabled") && text.contains("avouch rotate"),
        "{text}"
    );
    kms.admin("EnableKey", json!({ "KeyId": id })).await;

    let deny = |action: &str| {
        let statement = json!({ "Statement": [{ "Effect": "Deny", "Action": [action], "Resource": "*" }] });
        json!({ "KeyId": id, "PolicyName": "default", "Policy": statement.to_string() })
    };
    kms.admin("PutKeyPolicy", deny("kms:Sign")).await;
    let error = kms_error(world.advance(&mut writer, 4, 9).await);
    assert!(matches!(error, KmsError::Denied { action: KmsAction::Sign, .. }) && !error.retryable(), "{error}");
    assert!(error.to_string().contains("allow kms:GetPublicKey and kms:Sign on this key"), "{error}");
    kms.admin("PutKeyPolicy", deny("kms:ScheduleKeyDeletion")).await;

    // The alias is another key's now. Its signature is not the account's, and is not used.
    kms.admin("UpdateAlias", json!({ "AliasName": "alias/operator", "TargetKeyId": other })).await;
    let error = kms_error(world.advance(&mut writer, 4, 9).await);
    assert!(matches!(error, KmsError::WrongKey { .. }) && !error.retryable(), "{error}");
    kms.admin("UpdateAlias", json!({ "AliasName": "alias/operator", "TargetKeyId": id })).await;

    assert_eq!(writer.pending(), 0);
    world.advance(&mut writer, 4, 9).await.unwrap();
    assert_eq!(world.anchored_sizes().await, [4, 9]);
}

/// What stands before the service does with a request.
#[derive(Clone, Copy)]
enum Mood {
    Pass,
    Say(u16, &'static str),
    HangUp,
    Silence,
}

/// A service in front of moto that has moods, one a request and then the last one; counts requests.
async fn moody(kms: &Kms, moods: Vec<Mood>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let upstream = kms.url.trim_start_matches("http://").to_owned();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (upstream, count, moods) = (upstream.clone(), count.clone(), moods.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                loop {
                    let end = request.windows(4).position(|w| w == b"\r\n\r\n");
                    let length = end.map(|end| {
                        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                        let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
                        end + 4 + length.unwrap_or(0usize)
                    });
                    if length.is_some_and(|length| request.len() >= length) {
                        break;
                    }
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        return;
                    }
                }
                let n = count.fetch_add(1, Ordering::SeqCst);
                let (status, answer) = match moods[n.min(moods.len() - 1)] {
                    Mood::Pass => {
                        let (status, answer) = exchange(&upstream, &request).await.unwrap();
                        (status, answer.to_string())
                    }
                    Mood::Say(status, kind) => (status, json!({ "__type": kind, "message": "as told" }).to_string()),
                    Mood::HangUp => return,
                    Mood::Silence => {
                        while stream.read_buf(&mut request).await.unwrap() > 0 {}
                        return;
                    }
                };
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
            });
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_asked_again_and_what_is_permanent_is_not() {
    let Some(kms) = Kms::start().await else { return };
    let id = kms.create("ECC_SECG_P256K1").await;
    let account = kms.open(&id).await.address();
    let moods = vec![
        Mood::Say(400, "ThrottlingException"),
        Mood::Say(500, "KMSInternalException"),
        Mood::HangUp,
        Mood::Silence,
        Mood::Say(503, ""),
        Mood::Pass,
    ];
    let timeout = Duration::from_millis(300);
    let (url, asked) = moody(&kms, moods).await;
    let options = KmsOptions { endpoint: Some(url), timeout, ..kms.options(&id) };
    let operator =
        OperatorKey::from_kms(KmsOptions { timeout: Duration::from_secs(2), ..options.clone() }).await.unwrap();
    assert_eq!((operator.address(), asked.load(Ordering::SeqCst)), (account, 6));

    let (url, asked) = moody(&kms, vec![Mood::Say(400, "AccessDeniedException")]).await;
    let error = kms_error(OperatorKey::from_kms(KmsOptions { endpoint: Some(url), ..options.clone() }).await);
    assert!(matches!(error, KmsError::Denied { .. }), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a permanent error is not asked for again");

    // For ever throttled: given up within the budget, and the caller may try again later.
    let (url, asked) = moody(&kms, vec![Mood::Say(400, "ThrottlingException")]).await;
    let budget = Duration::from_secs(1);
    let began = Instant::now();
    let error = kms_error(OperatorKey::from_kms(KmsOptions { endpoint: Some(url), budget, ..options.clone() }).await);
    assert!(matches!(error, KmsError::Busy { .. }) && EthereumError::from(error).retryable());
    assert!(asked.load(Ordering::SeqCst) > 1 && began.elapsed() < Duration::from_secs(10));

    let (url, _) = moody(&kms, vec![Mood::Silence]).await;
    let error = kms_error(OperatorKey::from_kms(KmsOptions { endpoint: Some(url), budget, ..options.clone() }).await);
    assert!(matches!(error, KmsError::Timeout { action: KmsAction::GetPublicKey, .. }) && error.retryable(), "{error}");

    // Something else lives there.
    let (url, _) = moody(&kms, vec![Mood::Say(200, "nothing")]).await;
    let error = kms_error(OperatorKey::from_kms(KmsOptions { endpoint: Some(url), ..options }).await);
    assert!(error.to_string().contains("is this the endpoint of AWS KMS?") && !error.retryable(), "{error}");
}
