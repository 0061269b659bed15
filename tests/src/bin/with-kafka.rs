//! Runs a command beside a real Apache Kafka: `with-kafka COMMAND [ARGUMENT…]`, with KAFKA_BROKERS set for it. The broker
//! stops when the command ends. Exit code: the command's; 3 if there is no Kafka here.

use std::process::{Command, ExitCode};

use avouch_system_tests::KafkaBroker;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("usage: with-kafka COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let broker = match KafkaBroker::start() {
        Ok(broker) => broker,
        Err(missing) => {
            eprintln!("no Kafka: {missing}");
            return ExitCode::from(3);
        }
    };
    match Command::new(&program).args(args).env("KAFKA_BROKERS", broker.bootstrap()).status() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(e) => {
            eprintln!("{}: {e}", program.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}
