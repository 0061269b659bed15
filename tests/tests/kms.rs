//! An operator's key in AWS KMS from end to end: the program deploys with it, checks it, anchors with it through a kill, and says
//! what to do when it may no longer sign.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Kms, Process, eventually, place, require};
use pumps::{START, deploy, metric, reading};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const ALIAS: &str = "alias/avouch-operator";

fn anchor(anvil: &Anvil, kms: &Kms, contract: &str) -> String {
    let (rpc, endpoint, region) = (anvil.rpc(), kms.endpoint(), kms.region());
    format!(
        "[anchor]\nkind = \"ethereum\"\nrpc = \"{rpc}\"\nchain_id = 31337\ncontract = \"{contract}\"\n\
         signer = {{ aws_kms = \"{ALIAS}\", region = \"{region}\", endpoint = \"{endpoint}\" }}\n\
         every = {{ verdicts = 20, interval = \"500ms\" }}\n\n[train.anomaly]"
    )
}

fn call(kms: &Kms, directory: &Path, arguments: &[&str]) -> Avouch {
    kms.credentials(Avouch::new(arguments))
        .args([directory.join("pumps.toml")])
        .within(directory)
        .env("T_MODEL", pumps::model())
        .env("T_STATE", directory.join("state"))
}

struct Run {
    process: Process,
    address: String,
}

impl Run {
    fn start(kms: &Kms, directory: &Path, log: &str) -> Self {
        let address = format!("127.0.0.1:{}", place::free_port());
        let call = call(kms, directory, &["run"]).env("T_HTTP", &address);
        Self { process: call.start(&directory.join(log)), address }
    }

    fn entries(&self) -> f64 {
        metric(&self.address, "avouch_log_size_entries").unwrap_or(-1.0)
    }

    /// Waits until more than so many entries are on chain, and all that there are; how many.
    fn anchored(&mut self, more_than: f64) -> f64 {
        eventually("all is anchored", LIMIT, || {
            assert!(self.process.ended().is_none(), "it ended:\n{}", self.process.log_tail());
            let anchored = metric(&self.address, "avouch_anchor_size_entries").unwrap_or(-1.0);
            (anchored > more_than && anchored == self.entries()).then_some(anchored)
        })
    }
}

#[test]
fn a_pipeline_anchors_with_a_key_in_kms() {
    let (anvil, kms) = (require!(Anvil::start()), require!(Kms::start()));
    let directory = place::fresh_directory("kms-pipeline");
    let contract = deploy(&anvil);
    let text = pumps::without_kafka(pumps::FOLLOWED_FILES);
    let text = text.replace("[train.anomaly]", &anchor(&anvil, &kms, &contract));
    std::fs::write(directory.join("pumps.toml"), text).unwrap();
    let data = directory.join("data");
    std::fs::create_dir(&data).unwrap();
    let write = |name: &str, seconds: std::ops::Range<i64>| {
        let rows: Vec<String> =
            seconds.flat_map(|s| (0..5).map(move |d| reading(&format!("pump-{d:03}"), START + s * 1000))).collect();
        std::fs::write(data.join(name), rows.join("\n")).unwrap();
    };
    write("1.ndjson", 0..600);

    // The alias does not exist yet: at the place in the file.
    let check = call(&kms, &directory, &["check", "--connect"]);
    let refused = check.run(LIMIT);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.code, Some(1), "{said}");
    assert!(said.contains("error[bad-key]: key alias/avouch-operator is not in AWS KMS at http://127.0.0.1"), "{said}");
    assert!(said.contains("signer = { aws_kms = "), "{said}");

    // A command with the key on its command line: the account has nothing to pay with, and its address is named.
    kms.create_key(ALIAS);
    let (rpc, endpoint) = (anvil.rpc(), kms.endpoint());
    let by_hand = ["deploy", "cases", "--json", "--rpc", &rpc, "--kms", ALIAS, "--kms-region", kms.region()];
    let deployment = kms.credentials(Avouch::new(by_hand)).args(["--kms-endpoint", &endpoint]);
    let refused = deployment.run(LIMIT);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    let account = said.split("account ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    assert!(account.starts_with("0x") && account.len() == 42 && said.contains("it holds 0 wei"), "{said}");
    anvil.call("anvil_setBalance", &json!([account, "0x56bc75e2d63100000"]));
    assert_eq!(deployment.run(LIMIT).success().json()["owner"], json!(account));

    let found = check.run(LIMIT).success();
    let said = format!("{}{}", found.stdout, found.stderr);
    assert!(said.contains(&format!("the key of {account} in AWS KMS")), "{said}");

    // Killed in the middle, and again.
    let mut run = Run::start(&kms, &directory, "1.log");
    let first = run.anchored(50.0);
    write("2.ndjson", 600..1_200);
    eventually("more is on its way", LIMIT, || (run.entries() > first).then_some(()));
    run.process.kill();
    let mut run = Run::start(&kms, &directory, "2.log");
    let second = run.anchored(first);
    run.process.signal("TERM");
    assert!(run.process.wait(LIMIT).success(), "{}", run.process.log_tail());

    // It may not sign any more: the run ends, and says why and what to do.
    let id = kms.call("DescribeKey", &json!({ "KeyId": ALIAS }))["KeyMetadata"]["KeyId"].clone();
    kms.call("DisableKey", &json!({ "KeyId": id }));
    write("3.ndjson", 1_200..1_800);
    let mut run = Run::start(&kms, &directory, "3.log");
    let status = run.process.wait(LIMIT);
    let log = run.process.log();
    assert!(!status.success(), "{log}");
    assert!(log.contains("key alias/avouch-operator in AWS KMS cannot sign in its present state"), "{log}");
    assert!(log.contains("hand the logs over to another key with `avouch rotate`"), "{log}");

    // Enabled again, it goes on where it stood.
    kms.call("EnableKey", &json!({ "KeyId": id }));
    let mut run = Run::start(&kms, &directory, "4.log");
    run.anchored(second);
    run.process.signal("TERM");
    assert!(run.process.wait(LIMIT).success(), "{}", run.process.log_tail());
}
