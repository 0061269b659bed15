//! Kafka that is reached by TLS, passwords and tokens, by every client of the program; and what is said of those refused.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::Duration;

use avouch_system_tests::secured::{USER, token};
use avouch_system_tests::{Isolation, SecuredBroker, TokenEndpoint, require};
use pumps::Place;

const LIMIT: Duration = Duration::from_secs(90);

/// A pipeline that reaches the broker at `address` in this way. Paths and secrets come from the environment.
fn place(kafka: &SecuredBroker, address: &str, security: &str) -> Place {
    let mut place = Place::on(&kafka.broker, 1);
    place.rewrite("group   = \"pumps\"", &format!("group   = \"pumps\"\nsecurity = {{ {security} }}"));
    place.set("T_KAFKA", address);
    for (name, file) in [("T_CA", "ca.pem"), ("T_CERTIFICATE", "client.pem"), ("T_KEY_FILE", "client.key")] {
        place.set(name, kafka.certificate(file).display());
    }
    place.set("T_KEY_PASSWORD", "key-7");
    place.set("T_PASSWORD", USER.1);
    place
}

const SCRAM: &str = r#"protocol = "SASL_SSL", mechanism = "SCRAM-SHA-512", username = "avouch", password = "${env:T_PASSWORD}", ca = "${env:T_CA}""#;
const TOKENS: &str = r#"mechanism = "OAUTHBEARER", token_endpoint = "${env:T_ENDPOINT}", client_id = "avouch", client_secret = "${env:T_SECRET_OF_CLIENT}", scope = "kafka""#;

#[test]
fn every_way_in_reads_and_writes() {
    let kafka = require!(SecuredBroker::start());
    let endpoint = TokenEndpoint::start(60);
    let readings = pumps::healthy(10, 40);
    let password = r#"username = "avouch", password = "${env:T_PASSWORD}""#;
    let ways = [
        (kafka.tls(), r#"protocol = "SSL", ca = "${env:T_CA}""#.to_owned()),
        (
            kafka.mutual_tls(),
            r#"protocol = "SSL", ca = "${env:T_CA}", certificate = "${env:T_CERTIFICATE}", key = "${env:T_KEY_FILE}", key_password = "${env:T_KEY_PASSWORD}""#
                .to_owned(),
        ),
        (kafka.sasl_tls(), format!(r#"protocol = "SASL_SSL", mechanism = "PLAIN", {password}, ca = "${{env:T_CA}}""#)),
        (kafka.sasl_plain(), format!(r#"protocol = "SASL_PLAINTEXT", mechanism = "SCRAM-SHA-256", {password}"#)),
        (kafka.sasl_tls(), SCRAM.to_owned()),
        (
            kafka.sasl_plain(),
            r#"protocol = "SASL_PLAINTEXT", mechanism = "OAUTHBEARER", token = "${env:T_TOKEN}""#.to_owned(),
        ),
        (kafka.sasl_tls(), format!(r#"protocol = "SASL_SSL", {TOKENS}, ca = "${{env:T_CA}}""#)),
    ];
    for (address, security) in ways {
        let mut place = place(&kafka, &address, &security);
        place.set("T_TOKEN", token(600));
        place.set("T_ENDPOINT", endpoint.url());
        place.set("T_SECRET_OF_CLIENT", "s3cr=t&");
        kafka.broker.produce(place.get("T_READINGS"), readings.iter().cloned());
        let outcome = place.avouch("run").args(["--until-end"]).env("RUST_LOG", "debug").run(LIMIT).success();
        let verdicts = kafka.broker.read(place.get("T_VERDICTS"), Isolation::Committed).len();
        assert!(verdicts > 10, "{security}: {verdicts} verdicts");
        for secret in [USER.1, "s3cr=t&", "s3cr%3Dt%26", "key-7", place.get("T_TOKEN")] {
            assert!(!outcome.stderr.contains(secret), "{security}: a secret is in the log");
        }
    }
    assert!(endpoint.given() > 0, "tokens came from the endpoint");
}

/// What a run that must fail says, with what differs from run to run left out.
fn refusal(place: &Place) -> String {
    let outcome = place.avouch("run").args(["--until-end"]).env("RUST_LOG", "off").run(LIMIT);
    assert_eq!(outcome.code, Some(1), "{}\n{}", outcome.stdout, outcome.stderr);
    let mut text = outcome.stderr.replace(&place.directory.display().to_string(), "DIR");
    for before in ["127.0.0.1:", "localhost:"] {
        let parts: Vec<&str> = text.split(before).collect();
        let rest =
            parts[1..].iter().map(|p| format!("{before}N{}", p.trim_start_matches(|c: char| c.is_ascii_digit())));
        text = parts[0].to_owned() + &rest.collect::<String>();
    }
    text
}

#[test]
fn who_is_refused_is_told_why() {
    let kafka = require!(SecuredBroker::start());
    let mut refused = Vec::new();
    let mut case = |what: &str, place: &Place| refused.push(format!("{what}\n  {}", refusal(place).trim_end()));

    let mut wrong = place(&kafka, &kafka.sasl_tls(), SCRAM);
    wrong.set("T_PASSWORD", "open-sesame-8");
    case("a wrong password, SCRAM", &wrong);

    let plain = SCRAM.replace("SCRAM-SHA-512", "PLAIN");
    let mut wrong = place(&kafka, &kafka.sasl_tls(), &plain);
    wrong.set("T_PASSWORD", "open-sesame-8");
    case("a wrong password, PLAIN", &wrong);

    let mut wrong = place(&kafka, &kafka.sasl_tls(), SCRAM);
    wrong.set("T_CA", kafka.certificate("other-ca.pem").display());
    case("another authority", &wrong);

    let mut wrong = place(&kafka, &kafka.sasl_tls(), SCRAM);
    wrong.set("T_CA", "/no/such/ca.pem");
    case("no file of authorities", &wrong);

    let address = kafka.sasl_tls().replace("127.0.0.1", "localhost");
    let wrong = place(&kafka, &address, SCRAM);
    case("a host name that the certificate does not have", &wrong);

    let wrong = place(&kafka, &kafka.mutual_tls(), r#"protocol = "SSL", ca = "${env:T_CA}""#);
    // When the broker's alert comes is a matter of the moment, and so are its words.
    assert!(refusal(&wrong).contains("no TLS connection to 127.0.0.1:N"));

    let wrong = place(&kafka, &kafka.broker.bootstrap(), SCRAM);
    case("TLS to a plain listener", &wrong);

    let tokens = format!(r#"protocol = "SASL_PLAINTEXT", {TOKENS}"#);
    let endpoint = TokenEndpoint::start(60);
    let mut wrong = place(&kafka, &kafka.sasl_plain(), &tokens);
    wrong.set("T_ENDPOINT", endpoint.url());
    wrong.set("T_SECRET_OF_CLIENT", "guessed");
    case("a secret that the token endpoint does not know", &wrong);

    insta::assert_snapshot!("refused", refused.join("\n\n"));
}
