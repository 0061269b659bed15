//! What goes wrong at the start is said in one clear message; what goes wrong later does not stop the lanes.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, eventually, place, require};
use pumps::Place;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs what must fail, and gives what it said, with what differs from run to run left out.
fn refusal(call: &Avouch, place: &Place) -> String {
    // The message alone, without the log of what led to it.
    let outcome = call.clone().env("RUST_LOG", "off").run(LIMIT);
    assert_eq!(outcome.code, Some(1), "{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stdout, "");
    masked(&outcome.stderr, place)
}

fn masked(text: &str, place: &Place) -> String {
    let mut text = text.replace(&place.directory.display().to_string(), "DIR");
    for (name, shown) in [("T_READINGS", "READINGS"), ("T_VERDICTS", "VERDICTS"), ("T_DEAD", "DEAD")] {
        text = text.replace(place.get(name), shown);
    }
    text = text.replace(&pumps::model().parent().unwrap().display().to_string(), "MODELS");
    for before in ["127.0.0.1:", "process "] {
        text = without_number(&text, before);
    }
    without_hashes(&text)
}

/// Puts `HASH` for every run of 64 hexadecimal digits.
fn without_hashes(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let digits = |word: &str| word.chars().filter(char::is_ascii_hexdigit).count();
    words.map(|word| if digits(word) == 64 { format!("HASH{}", &word[64..]) } else { word.to_owned() }).collect()
}

/// Puts `N` for the number after each `before`.
fn without_number(text: &str, before: &str) -> String {
    let mut parts = text.split(before);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        done + before + if rest.len() < part.len() { "N" } else { "" } + rest
    })
}

#[test]
fn the_source_topic_does_not_exist() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    place.set("T_READINGS", "no.such.topic");
    insta::assert_snapshot!("missing_topic", refusal(&place.avouch("run"), &place));
}

#[test]
fn the_dead_letter_topic_does_not_exist() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    place.set("T_DEAD", "no.such.dead");
    insta::assert_snapshot!("missing_dead_letter_topic", refusal(&place.avouch("run"), &place));
}

#[test]
fn no_broker_is_at_the_address() {
    let place = Place::new(&format!("127.0.0.1:{}", place::free_port()), "readings", "verdicts", "dead");
    insta::assert_snapshot!("no_broker", refusal(&place.avouch("run"), &place));
}

#[test]
fn the_contract_is_not_ours() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let mut place = Place::on(kafka, 1);
    let nothing = "0x00000000000000000000000000000000000000aa";
    place.anchor(&anvil.rpc(), nothing, anvil.key(0));
    insta::assert_snapshot!("no_contract", refusal(&place.avouch("run"), &place));

    // Code that answers every call with 32 zero bytes.
    let other = "0x00000000000000000000000000000000000000bb";
    anvil.call("anvil_setCode", &json!([other, "0x60206000f3"]));
    place.set("T_CONTRACT", other);
    insta::assert_snapshot!("other_contract", refusal(&place.avouch("run"), &place));
}

/// What a run would stumble over `check --connect` says before it, and finds what is there.
#[test]
fn a_check_that_connects_finds_what_is_there_and_what_is_not() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let mut place = Place::on(kafka, 2);
    place.anchor(&anvil.rpc(), &pumps::deploy(&anvil), anvil.key(0));
    let check = |place: &Place| place.avouch("check").args(["--connect"]).run(LIMIT);
    let found = check(&place);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    for what in ["3 topics", "the contract on chain 31337"] {
        assert!(found.stdout.contains(what), "{}", found.stdout);
    }
    let says = |place: &Place, what: &[&str]| {
        let found = check(place);
        assert_eq!(found.code, Some(1), "{}", found.stdout);
        for what in what {
            assert!(found.stderr.contains(what), "{what}:\n{}", found.stderr);
        }
    };
    // A key that owns nothing, and topics that are not there, at once.
    place.set("T_KEY", format!("0x{}", "5ec2e7ab".repeat(8)));
    place.set("T_DEAD", "no.such.dead");
    says(&place, &["error[no-funds]: the signer 0x", "error[no-topic]: topic \"no.such.dead\" does not exist"]);
    place.set("T_CONTRACT", "0x00000000000000000000000000000000000000aa");
    says(&place, &["error[wrong-contract]"]);
}

#[test]
fn the_chain_is_another() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start_with(&["--chain-id", "1337"]));
    let mut place = Place::on(kafka, 1);
    place.anchor(&anvil.rpc(), &pumps::deploy(&anvil), anvil.key(0));
    insta::assert_snapshot!("wrong_chain", refusal(&place.avouch("run"), &place));
}

#[test]
fn the_http_address_is_taken() {
    let kafka = require!(KafkaBroker::shared());
    let taken = std::net::TcpListener::bind(("127.0.0.1", place::free_port())).unwrap();
    let mut place = Place::on(kafka, 1);
    place.set("T_HTTP", taken.local_addr().unwrap());
    insta::assert_snapshot!("http_taken", refusal(&place.avouch("run"), &place));
}

#[test]
fn another_process_has_the_state() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let http = format!("127.0.0.1:{}", place::free_port());
    let mut second = place.clone();
    second.set("T_HTTP", "127.0.0.1:0");
    place.set("T_HTTP", &http);
    let mut first = place.avouch("run").start(&place.directory.join("avouch.log"));
    eventually("the first is ready", LIMIT, || ureq::get(format!("http://{http}/readyz")).call().ok());
    // In the group it would wait for lanes of its own; who wants all of them is refused.
    let greedy = second.avouch("run").args(["--all-partitions"]);
    insta::assert_snapshot!("state_taken", refusal(&greedy, &second));

    assert!(first.ended().is_none(), "the first goes on");
    first.signal("TERM");
    assert!(first.wait(LIMIT).success(), "{}", first.log_tail());
}

#[test]
fn the_model_file_is_damaged_or_not_the_approved_one() {
    let mut place = Place::new("127.0.0.1:1", "readings", "verdicts", "dead");
    let good = std::fs::read(pumps::model()).unwrap();
    let damaged = place.directory.join("damaged.model");
    place.set("T_MODEL", damaged.display());
    let write = |bytes: &[u8]| std::fs::write(&damaged, bytes).unwrap();

    write(&good[..good.len() / 2]);
    insta::assert_snapshot!("model_truncated", refusal(&place.avouch("run"), &place));
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    write(&altered);
    insta::assert_snapshot!("model_altered", refusal(&place.avouch("run"), &place));
    write(b"");
    insta::assert_snapshot!("model_empty", refusal(&place.avouch("run"), &place));

    write(&good);
    place.set("T_MODEL_SHA256", "ab".repeat(32));
    insta::assert_snapshot!("model_not_approved", refusal(&place.avouch("run"), &place));
}

#[test]
fn an_endpoint_that_refuses_stops_no_lane_and_all_is_anchored_once_it_answers() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let (port, http) = (place::free_port(), format!("127.0.0.1:{}", place::free_port()));
    let state = place.directory.join("chain.json");
    // A chain with the contract on it, which then goes away.
    let (contract, key) = {
        let state = state.display().to_string();
        let anvil = require!(Anvil::start_with(&[
            "--dump-state",
            &state,
            "--state-interval",
            "1",
            // `finalized` is 64 blocks behind, and an anvil that loads its state otherwise knows nothing of then.
            "--preserve-historical-states",
        ]));
        let contract = pumps::deploy(&anvil);
        eventually("the chain's state is on disk", LIMIT, || kept(Path::new(&state), &contract));
        (contract, anvil.key(0).to_owned())
    };
    place.anchor(&format!("http://127.0.0.1:{port}"), &contract, &key);
    place.set("T_HTTP", &http);
    kafka.produce(place.get("T_READINGS"), pumps::healthy(4, 120));
    let mut process = place.avouch("run").start(&place.directory.join("avouch.log"));

    let metric = |name: &str| pumps::metric(&http, name).unwrap_or(-1.0);
    eventually("every row is read", LIMIT, || (metric("avouch_lane_rows_in_total") == 480.0).then_some(()));
    eventually("anchoring has failed", LIMIT, || (metric("avouch_anchor_errors_total") >= 1.0).then_some(()));
    let judged = metric("avouch_log_size_entries");
    assert!(judged >= 80.0, "{judged} verdicts");
    eventually("the verdicts are delivered", LIMIT, || {
        (kafka.read(place.get("T_VERDICTS"), Isolation::Committed).len() as f64 == judged).then_some(())
    });
    assert_eq!(metric("avouch_anchor_pending_entries"), judged);
    assert!(metric("avouch_anchor_merge_delay_seconds") > 0.0);
    assert!(process.ended().is_none(), "{}", process.log_tail());
    assert!(ureq::get(format!("http://{http}/readyz")).call().is_ok(), "a lane without a chain is ready");

    let state = state.display().to_string();
    let anvil = require!(Anvil::start_on(port, &["--load-state", &state]));
    eventually("all is anchored", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (metric("avouch_anchor_size_entries") == judged && metric("avouch_anchor_pending_entries") == 0.0).then_some(())
    });
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());

    // And an auditor finds it there.
    let bundle = place.directory.join("bundle");
    place.avouch("bundle").args(["--lane", "0", "--index", "0", "--out"]).args([&bundle]).run(LIMIT).success();
    Avouch::new(["verify"]).args([&bundle]).args(["--rpc", &anvil.rpc()]).run(LIMIT).success();
}

/// Whether the dumped state has the contract in it.
fn kept(state: &Path, contract: &str) -> Option<()> {
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).ok()?).ok()?;
    let code = state["accounts"][contract.to_lowercase()]["code"].as_str()?;
    (code.len() > 100).then_some(())
}
