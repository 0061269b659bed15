//! What anchors may cost: when the day's budget is spent nothing is sent, the promise's metric tells, a stop does not wait for
//! tomorrow, and what waited goes in one checkpoint later.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Process, eventually, place, require};
use pumps::{START, assert_served, deploy, metric, reading};

const LIMIT: Duration = Duration::from_secs(60);
const HELD: &str = "avouch_anchor_held{lane=\"0\",reason=\"budget\"}";

fn anchor(anvil: &Anvil, contract: &str, gas: &str) -> String {
    let rpc = anvil.rpc();
    // Two ways to one node stand for two nodes.
    let other = rpc.replace("127.0.0.1", "localhost");
    format!(
        "[anchor]\nkind = \"ethereum\"\nrpc = [\"{rpc}\", \"{other}\"]\nquorum = 2\nchain_id = 31337\ncontract = \"{contract}\"\n\
         signer = {{ key = \"${{env:T_KEY}}\" }}\nevery = {{ verdicts = 1_000, interval = \"500ms\" }}\nmax_merge_delay = \"1s\"\n\
         gas = {gas}\n\n[train.anomaly]"
    )
}

struct Run {
    process: Process,
    address: String,
}

impl Run {
    fn start(directory: &Path, anvil: &Anvil, contract: &str, gas: &str, log: &str) -> Self {
        let text = pumps::without_kafka(pumps::FOLLOWED_FILES);
        let text = text.replace("[train.anomaly]", &anchor(anvil, contract, gas));
        let file = directory.join("pumps.toml");
        std::fs::write(&file, text).unwrap();
        let address = format!("127.0.0.1:{}", place::free_port());
        let call = Avouch::new(["run", "--accept-change"])
            .args([file])
            .within(directory)
            .env("T_MODEL", pumps::model())
            .env("T_STATE", directory.join("state"))
            .env("T_HTTP", &address)
            .env("T_KEY", anvil.key(0));
        Self { process: call.start(&directory.join(log)), address }
    }

    fn metric(&self, name: &str) -> f64 {
        metric(&self.address, name).unwrap_or(-1.0)
    }

    fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        eventually(what, LIMIT, || {
            assert!(self.process.ended().is_none(), "it ended:\n{}", self.process.log_tail());
            is(self).then_some(())
        });
    }

    fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "{status}:\n{}", self.process.log_tail());
    }
}

#[test]
fn without_money_verdicts_wait_and_go_in_one_checkpoint_later() {
    let anvil = require!(Anvil::start());
    let directory = place::fresh_directory("anchor-money");
    let contract = deploy(&anvil);
    let data = directory.join("data");
    std::fs::create_dir(&data).unwrap();
    let write = |name: &str, seconds: std::ops::Range<i64>| {
        let rows: Vec<String> =
            seconds.flat_map(|s| (0..5).map(move |d| reading(&format!("pump-{d:03}"), START + s * 1000))).collect();
        std::fs::write(data.join(name), rows.join("\n")).unwrap();
    };
    write("1.ndjson", 0..600);

    let mut run = Run::start(&directory, &anvil, &contract, "{ per_day = \"1 gwei\" }", "poor.log");
    run.until("verdicts wait", |r| r.metric(HELD) == 1.0 && r.metric("avouch_anchor_pending_entries") > 50.0);
    run.until("the alarm's condition holds", |r| {
        r.metric("avouch_anchor_merge_delay_seconds") > r.metric("avouch_anchor_max_merge_delay_seconds")
    });
    assert_served(&run.address, &["avouch_anchor_"]);
    assert_eq!((run.metric("avouch_anchor_size_entries"), run.metric("avouch_anchor_errors_total")), (0.0, 0.0));
    assert!(run.process.log().contains("the day's budget is spent"), "{}", run.process.log_tail());
    // Told to stop, it does not wait for tomorrow.
    run.stop();

    write("2.ndjson", 600..1_200);
    let mut run = Run::start(&directory, &anvil, &contract, "{ per_day = \"1 ether\" }", "rich.log");
    run.until("all is anchored", |r| {
        let size = r.metric("avouch_log_size_entries");
        size > 100.0
            && r.metric("avouch_anchor_size_entries") == size
            && r.metric("avouch_anchor_pending_entries") == 0.0
    });
    assert!(run.metric("avouch_anchor_checkpoints_total") <= 3.0, "what waited goes together");
    run.until("what was spent is shown", |r| r.metric("avouch_anchor_gas_spent_ether") > 0.0);
    assert!(run.metric("avouch_anchor_gas_spent_ether") < run.metric("avouch_anchor_gas_budget_ether"));
    assert_eq!(run.metric(HELD), 0.0);
    run.stop();
}
