//! The program `avouch`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use avouch::commands::log_filter;
use avouch::commands::{
    audit, backtest, bench, bundle, check, dead, demo, deploy, device, erase, evaluate, explain, explain_verdict,
    export, graph, label, model, monitor, new, produce, query, replay, retrain, rotate, run, schema, simulate, state,
    tap, test, top, train, verify, witness,
};
use clap::{Parser, Subcommand, ValueEnum};

/// Kafka's client takes memory for each message in one thread and it is given back in another, where the system's allocator
/// waits for locks: with Avro from Kafka, 15 % of the CPU time went there. It stands in for the C library's own, too
/// (`unprefixed_malloc`). mimalloc is as fast, but holds what one thread took and another gave back: lanes reading records
/// of a megabyte held 650 MiB with it, 120 MiB with this (`tests/tests/memory.rs`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Streaming analytics whose decisions can be audited by someone who does not trust it.
#[derive(Debug, Parser)]
#[command(name = "avouch", version, propagate_version = true)]
struct Cli {
    /// How logs look on standard error. Set RUST_LOG to choose what is logged
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(audit::AuditArgs),
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    New(new::NewArgs),
    Schema(schema::SchemaArgs),
    Train(train::TrainArgs),
    Retrain(retrain::RetrainArgs),
    Backtest(backtest::BacktestArgs),
    Run(run::RunArgs),
    Dead(dead::DeadArgs),
    Deploy(deploy::DeployArgs),
    Device(device::DeviceArgs),
    Bundle(bundle::BundleArgs),
    Bench(bench::BenchArgs),
    Verify(verify::VerifyArgs),
    Erase(erase::EraseArgs),
    Evaluate(evaluate::EvaluateArgs),
    Explain(explain::ExplainArgs),
    ExplainVerdict(explain_verdict::ExplainVerdictArgs),
    Export(export::ExportArgs),
    Graph(graph::GraphArgs),
    Label(label::LabelArgs),
    Model(model::ModelArgs),
    Monitor(monitor::MonitorArgs),
    Produce(produce::ProduceArgs),
    Query(query::QueryArgs),
    Replay(replay::ReplayArgs),
    Rotate(rotate::RotateArgs),
    Simulate(simulate::SimulateArgs),
    State(state::StateArgs),
    Tap(tap::TapArgs),
    Test(test::TestArgs),
    Top(top::TopArgs),
    Witness(witness::WitnessArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Demo(args) = &cli.command {
        // It logs into its own directory.
        return demo::run(args);
    }
    let filter = log_filter();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::New(args) => new::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Train(args) => train::run(args),
        Command::Retrain(args) => retrain::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Backtest(args) => backtest::run(args),
        Command::Run(args) => run::run(args),
        Command::Dead(args) => dead::run(args),
        Command::Deploy(args) => deploy::run(args),
        Command::Device(args) => device::run(args),
        Command::Bundle(args) => bundle::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Erase(args) => erase::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Explain(args) => explain::run(args),
        Command::ExplainVerdict(args) => explain_verdict::run(args),
        Command::Export(args) => export::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Label(args) => label::run(args),
        Command::Model(args) => model::run(args),
        Command::Monitor(args) => monitor::run(args),
        Command::Produce(args) => ended(args.json, produce::run(args)),
        Command::Query(args) => query::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Rotate(args) => rotate::run(args),
        Command::Simulate(args) => ended(false, simulate::run(args)),
        Command::State(args) => state::run(args),
        Command::Tap(args) => tap::run(args),
        Command::Test(args) => test::run(args),
        Command::Top(args) => top::run(args),
        Command::Witness(args) => witness::run(args),
    }
}

fn ended<E: std::fmt::Display>(json: bool, outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if json {
                println!("{}", serde_json::json!({ "error": e.to_string() }));
            }
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
