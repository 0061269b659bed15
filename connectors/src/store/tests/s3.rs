//! S3's protocol, spoken with moto's server: a process killed for real, and another machine that takes over.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::*;
use super::moto;
use super::objects::Faulty;
use crate::store::{
    LaneStore, ObjectStoreOptions, Objects, RemoteLane, StoreError, StoreOptions, inspect_remote, open_object_store,
};

/// A running moto; killed when dropped.
struct Moto {
    child: Child,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    fn start() -> Option<Self> {
        let (python, port) = moto::python_and_port()?;
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, url: format!("http://127.0.0.1:{port}") };
        let began = Instant::now();
        while moto.bucket().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "moto does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(moto)
    }

    /// Makes the bucket by hand: the store itself never makes one.
    fn bucket(&self) -> Option<()> {
        use std::io::{Read as _, Write as _};
        let mut connection = std::net::TcpStream::connect(self.url.trim_start_matches("http://")).ok()?;
        connection
            .write_all(b"PUT /plant HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    }

    fn objects(&self) -> Arc<dyn Objects> {
        objects(&self.url, "s3://plant/avouch")
    }
}

fn objects(endpoint: &str, url: &str) -> Arc<dyn Objects> {
    let options = ObjectStoreOptions {
        endpoint: Some(endpoint.into()),
        region: Some("us-east-1".into()),
        access_key: Some("test".into()),
        secret_key: Some("test".into()),
        timeout: Some(Duration::from_secs(10)),
    };
    open_object_store(url, &options).unwrap().under("pump-health/0")
}

fn with(objects: Arc<dyn Objects>) -> StoreOptions {
    StoreOptions { remote: Some(RemoteLane::new(objects, Duration::from_secs(2))), ..options() }
}

fn to(store: &mut LaneStore, size: u64) -> Result<(), StoreError> {
    grow(store, size)?;
    commit(store)
}

const CHILD: &str = "AVOUCH_S3_TEST_CHILD";

/// Not a test of its own: the writer that [`killed_for_real_and_taken_over_by_a_machine_that_has_nothing`] starts and kills.
#[test]
fn child_writer() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let (endpoint, dir) = given.split_once(' ').unwrap();
    let mut store = open_with(Path::new(dir), with(objects(endpoint, "s3://plant/avouch"))).unwrap();
    loop {
        let size = store.size();
        let to = size + 1 + size % 37;
        grow(&mut store, to).unwrap();
        let told = counters(to);
        store.begin_commit(a_commit(to, &told)).unwrap();
    }
}

#[test]
fn killed_for_real_and_taken_over_by_a_machine_that_has_nothing() {
    let Some(moto) = Moto::start() else { return };
    let mut before = 0;
    for round in 0u64..8 {
        // A new machine each time.
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::s3::child_writer", "--test-threads=1"])
            .env(CHILD, format!("{} {}", moto.url, dir.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Once it has taken the lane over and made a checkpoint, at any moment.
        let newest = || moto.objects().list("manifest-").unwrap().into_iter().map(|(n, _)| n).max();
        let (had, began) = (newest(), Instant::now());
        let mut seen = 0;
        while seen < 2 {
            assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "round {round}");
            std::thread::sleep(Duration::from_millis(10));
            let number = |n: Option<String>| n.map_or(0, |n| n["manifest-".len()..].parse::<u64>().unwrap() + 1);
            seen = number(newest()) - number(had.clone());
        }
        std::thread::sleep(Duration::from_millis(round * 7919 % 200));
        child.kill().unwrap();
        child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        let store = open_with(empty.path(), with(moto.objects())).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(store.recovery().damaged, [], "round {round}");
        assert!(store.size() >= before);
        before = store.size();
    }
    println!("8 kills, {before} verdicts");
    assert!(before > 0);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), with(moto.objects())).unwrap();
    check_readers(&store, &roots(before));
    to(&mut store, before + 7).unwrap();
    drop(store);
    assert_eq!(log_bytes(dir.path()), log_bytes(lane(&[before + 7]).path()));
    for c in inspect_remote(&RemoteLane::new(moto.objects(), Duration::from_secs(1)), true).unwrap() {
        assert_eq!(c.damaged, None);
    }
}

#[test]
fn a_zombie_is_fenced_and_a_failing_service_waited_for() {
    let Some(moto) = Moto::start() else { return };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = open_with(a.path(), with(moto.objects())).unwrap();
    to(&mut first, 40).unwrap();
    // Answers are lost, requests refused and slow; in front of a real service.
    let faulty = Faulty::new(moto.objects());
    let mut second = open_with(b.path(), with(faulty.clone())).unwrap();
    let fenced = to(&mut first, 60).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours: 1, .. }), "{fenced}");
    for call in 0..4 {
        faulty.fail_at(call, super::objects::Fault::AnswerLost);
        let size = second.size();
        to(&mut second, size + 10).unwrap();
    }
    faulty.refuse(3);
    faulty.pause(Duration::from_millis(50));
    let size = second.size();
    to(&mut second, size + 10).unwrap();
    assert_eq!(second.committed().log_size, 90);
    drop(second);
    drop(first);
    // A bucket that does not exist, and a service that is not there, are said at once or after a little patience.
    let c = tempfile::tempdir().unwrap();
    let refused = LaneStore::open(c.path(), &origin(), with(objects(&moto.url, "s3://nowhere"))).unwrap_err();
    assert!(refused.to_string().contains("NoSuchBucket"), "{refused}");
    let refused = LaneStore::open(c.path(), &origin(), with(objects("http://127.0.0.1:9", "s3://plant"))).unwrap_err();
    assert!(matches!(refused, StoreError::Remote { .. }), "{refused}");
}
