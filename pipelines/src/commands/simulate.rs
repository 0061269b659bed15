//! `avouch simulate`: writes what a fleet would have sent, and the truth about it.

mod rows;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use avouch_engine::decode::{format_timestamp, parse_timestamp};
use clap::{Args, Subcommand};
use serde_json::json;
use thiserror::Error;

use crate::lang::parse_duration;
use crate::simulator::bench::BenchWorkload;
use crate::simulator::{
    FaultMix, Fleet, FleetConfig, GroundTruth, MillingConfig, Scenario, ScenarioConfig, SimulatorError, TurbofanConfig,
};

/// Write readings of a simulated fleet to a file. Event time only: no clock, the same seed gives the same bytes.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// What to simulate
    #[command(subcommand)]
    pub what: Simulation,

    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to simulate.
#[derive(Debug, Clone, Subcommand)]
pub enum Simulation {
    /// A fleet of pumps with faults, late and bad rows; the truth goes to a file of its own
    Pumps(PumpArgs),
    /// Servers' CPU load in the layout of the Numenta Anomaly Benchmark, every five minutes
    Servers(ScenarioArgs),
    /// Refrigerated shipments, every minute
    ColdChain(ScenarioArgs),
    /// Battery packs, every ten seconds
    Batteries(ScenarioArgs),
    /// Runs of a chemical plant in the layout of the Tennessee Eastman process, every three minutes
    Plant(ScenarioArgs),
    /// Channels of a spacecraft's telemetry, every minute
    Spacecraft(ScenarioArgs),
    /// Turbofan engines flown until they fail, in the layout of NASA's C-MAPSS, a flight an hour
    Turbofan(TurbofanArgs),
    /// Jobs of a milling machine in the layout of AI4I 2020, one a minute
    Milling(MillingArgs),
    /// The plain workload of the benchmark: 129-byte rows, one a second and device
    Bench(BenchArgs),
}

/// Options of the pump fleet.
#[derive(Debug, Clone, Args)]
pub struct PumpArgs {
    /// NDJSON file to write, in the order of arrival
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,

    /// JSON file for the truth: faults per device and counts of bad, late and future rows
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,

    /// Pumps
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub devices: u32,

    /// First event time, RFC 3339
    #[arg(long, default_value = "2026-01-06T08:00:00Z", value_parser = time, value_name = "TIME")]
    pub start: i64,

    /// Event time covered, such as 2h
    #[arg(long, default_value = "2h", value_parser = duration, value_name = "DURATION")]
    pub duration: i64,

    /// Time between two readings of a pump
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub cadence: i64,

    /// Decides everything random; the same seed on another day is the same pumps
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,

    /// No faults, no bad rows, no late rows: what a model is trained on
    #[arg(long, conflicts_with_all = ["wear", "cavitation", "stuck", "fast_clock", "bad_share", "late_share"])]
    pub healthy: bool,

    /// Pumps with a worn bearing; by default a tenth of the fleet
    #[arg(long, value_name = "N")]
    pub wear: Option<u32>,

    /// Pumps that cavitate; by default one in thirteen
    #[arg(long, value_name = "N")]
    pub cavitation: Option<u32>,

    /// Pumps with a stuck sensor; by default one in twenty
    #[arg(long, value_name = "N")]
    pub stuck: Option<u32>,

    /// Pumps whose clock runs fast; by default one in forty
    #[arg(long, value_name = "N")]
    pub fast_clock: Option<u32>,

    /// Share of rows cut off in the middle; 0.0005 by default
    #[arg(long, value_name = "SHARE")]
    pub bad_share: Option<f64>,

    /// Share of rows that come minutes late; 0.0005 by default
    #[arg(long, value_name = "SHARE")]
    pub late_share: Option<f64>,

    /// Adds a first field of this name with the time of arrival, for `avouch produce --arrival`
    #[arg(long, value_name = "FIELD")]
    pub arrival: Option<String>,
}

/// Options of the other fleets.
#[derive(Debug, Clone, Args)]
pub struct ScenarioArgs {
    /// File to write, in order of time: CSV if it ends in .csv, else NDJSON. With {device} in it, each device has a file
    /// of its own, and its rows do not name it
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,

    /// CSV file for the truth: device, from, to, kind
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,

    /// Devices
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub devices: u32,

    /// First event time, RFC 3339
    #[arg(long, default_value = "2026-01-06T00:00:00Z", value_parser = time, value_name = "TIME")]
    pub start: i64,

    /// Event time covered, such as 7d
    #[arg(long, default_value = "7d", value_parser = duration, value_name = "DURATION")]
    pub duration: i64,

    /// Time between two readings of a device, if not the usual one
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub cadence: Option<i64>,

    /// Decides everything random; the same seed on another day is the same fleet
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,

    /// No faults: what a model is trained on
    #[arg(long, conflicts_with = "faulty")]
    pub healthy: bool,

    /// Devices with a fault, each in the middle of the run; by default a fifth of the fleet
    #[arg(long, value_name = "N")]
    pub faulty: Option<u32>,
}

/// Options of the engines.
#[derive(Debug, Clone, Args)]
pub struct TurbofanArgs {
    /// File to write, in order of time: CSV if it ends in .csv, else NDJSON
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,

    /// CSV file for the truth: engine, failed_at; also of engines that fail after the last flight written
    #[arg(long, value_name = "FILE")]
    pub failures: Option<PathBuf>,

    /// Engines
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub engines: u32,

    /// Flight conditions, from 1 (sea level) to 6
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub conditions: u32,

    /// Write no more flights of an engine than this; by default all until it fails
    #[arg(long, value_name = "N")]
    pub flights: Option<u32>,

    /// An hour before the first flight, RFC 3339
    #[arg(long, default_value = "2000-01-01T00:00:00Z", value_parser = time, value_name = "TIME")]
    pub start: i64,

    /// Decides everything random
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
}

/// Options of the milling machine.
#[derive(Debug, Clone, Args)]
pub struct MillingArgs {
    /// File to write, in order of time: CSV if it ends in .csv, else NDJSON
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,

    /// CSV file for the truth: product, at, cause of each job that failed
    #[arg(long, value_name = "FILE")]
    pub failures: Option<PathBuf>,

    /// Jobs
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub jobs: u64,

    /// First job, RFC 3339
    #[arg(long, default_value = "2000-01-01T00:00:00Z", value_parser = time, value_name = "TIME")]
    pub start: i64,

    /// Decides everything random
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
}

/// Options of the benchmark workload.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// NDJSON file to write
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,

    /// Rows
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    pub rows: u64,

    /// Devices
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub devices: u32,

    /// Decides the values
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Why nothing was simulated.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// A configuration that makes no sense.
    #[error(transparent)]
    Config(#[from] SimulatorError),
    /// A file for each device was asked of what goes into one.
    #[error(
        "{}: a file for each device is made of servers, cold-chain, batteries, plant and spacecraft only; leave {{device}} out",
        .0.display()
    )]
    OneFile(PathBuf),
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Simulates, writes the files and prints a summary on standard output.
pub fn run(args: &SimulateArgs) -> Result<(), SimulateError> {
    let started = Instant::now();
    let whole = match &args.what {
        Simulation::Pumps(a) => Some(&a.out),
        Simulation::Turbofan(a) => Some(&a.out),
        Simulation::Milling(a) => Some(&a.out),
        Simulation::Bench(a) => Some(&a.out),
        _ => None,
    };
    if let Some(path) = whole.filter(|p| rows::each_its_own(p)) {
        return Err(SimulateError::OneFile(path.clone()));
    }
    let (text, mut json) = match &args.what {
        Simulation::Pumps(pumps) => {
            let truth = simulate_pumps(pumps)?;
            if let Some(path) = &pumps.truth {
                write(path, |out| out.write_all(truth.to_json()?.as_bytes()))?;
            }
            summary(&pumps.out, &truth)
        }
        Simulation::Servers(args) => simulate_scenario(Scenario::Servers, args)?,
        Simulation::ColdChain(args) => simulate_scenario(Scenario::ColdChain, args)?,
        Simulation::Batteries(args) => simulate_scenario(Scenario::Batteries, args)?,
        Simulation::Plant(args) => simulate_scenario(Scenario::Plant, args)?,
        Simulation::Spacecraft(args) => simulate_scenario(Scenario::Spacecraft, args)?,
        Simulation::Turbofan(args) => simulate_turbofan(args)?,
        Simulation::Milling(args) => simulate_milling(args)?,
        Simulation::Bench(bench) => {
            let workload =
                BenchWorkload { rows: bench.rows, devices: bench.devices, seed: bench.seed, ..Default::default() };
            let mut bytes = 0;
            write(&bench.out, |out| {
                bytes = workload.write(out)?;
                Ok(())
            })?;
            (
                format!("{}: {} rows of {} devices, {bytes} bytes", bench.out.display(), bench.rows, bench.devices),
                json!({ "out": bench.out, "rows": bench.rows, "devices": bench.devices, "bytes": bytes }),
            )
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    json["seconds"] = seconds.into();
    let line = if args.json { json.to_string() } else { format!("{text}, in {seconds:.2} s") };
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(())
}

fn simulate_pumps(args: &PumpArgs) -> Result<GroundTruth, SimulateError> {
    let mut config = if args.healthy {
        FleetConfig::healthy(args.seed, args.devices, args.start, args.duration)
    } else {
        let usual = FleetConfig::troubled(args.seed, args.devices, args.start, args.duration);
        FleetConfig {
            faults: FaultMix {
                bearing_wear: args.wear.unwrap_or(usual.faults.bearing_wear),
                cavitation: args.cavitation.unwrap_or(usual.faults.cavitation),
                stuck_sensor: args.stuck.unwrap_or(usual.faults.stuck_sensor),
                fast_clock: args.fast_clock.unwrap_or(usual.faults.fast_clock),
            },
            bad_share: args.bad_share.unwrap_or(usual.bad_share),
            late_share: args.late_share.unwrap_or(usual.late_share),
            ..usual
        }
    };
    config.cadence_ms = args.cadence;
    let mut fleet = Fleet::new(config)?;
    let arrival = args.arrival.as_ref().map(|name| serde_json::Value::from(name.as_str()).to_string());
    write(&args.out, |out| {
        for reading in fleet.by_ref() {
            match &arrival {
                None => out.write_all(&reading.payload)?,
                Some(name) => {
                    // Every payload begins with the brace, also one that is cut off; what follows it may be nothing.
                    let rest = reading.payload.get(1..).unwrap_or_default();
                    write!(out, "{{{name}:{},", reading.broker_time_ms)?;
                    out.write_all(rest)?;
                }
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    Ok(fleet.truth())
}

fn simulate_scenario(scenario: Scenario, args: &ScenarioArgs) -> Result<(String, serde_json::Value), SimulateError> {
    let usual = if args.healthy { 0 } else { args.devices.div_ceil(5) };
    let config = ScenarioConfig {
        scenario,
        seed: args.seed,
        devices: args.devices,
        start_ms: args.start,
        duration_ms: args.duration,
        cadence_ms: args.cadence.unwrap_or_else(|| scenario.cadence_ms()),
        faulty: args.faulty.unwrap_or(usual),
    };
    let mut rows = config.rows()?;
    let count = if rows::each_its_own(&args.out) {
        rows::file_each(&args.out, |n| config.name(n), |row| rows.write(row, false))?
    } else {
        rows::one_file(&args.out, |row| rows.write(row, true).is_some())?
    };
    if let Some(path) = &args.labels {
        write(path, |out| out.write_all(rows.labels().as_bytes()))?;
    }
    let faulty = rows.faults().len();
    let text = format!(
        "{}: {count} rows of {} devices from {} to {}; {faulty} devices faulty",
        args.out.display(),
        args.devices,
        format_timestamp(args.start),
        format_timestamp(args.start + args.duration),
    );
    let json = json!({ "out": args.out, "rows": count, "devices": args.devices, "faulty": faulty });
    Ok((text, json))
}

fn simulate_turbofan(args: &TurbofanArgs) -> Result<(String, serde_json::Value), SimulateError> {
    let config = TurbofanConfig {
        seed: args.seed,
        engines: args.engines,
        conditions: args.conditions,
        start_ms: args.start,
        flights: args.flights,
    };
    let mut flights = config.rows()?;
    let count = rows::one_file(&args.out, |row| flights.write(row))?;
    if let Some(path) = &args.failures {
        write(path, |out| out.write_all(flights.failures().as_bytes()))?;
    }
    let text = format!("{}: {count} flights of {} engines", args.out.display(), args.engines);
    Ok((text, json!({ "out": args.out, "rows": count, "engines": args.engines })))
}

fn simulate_milling(args: &MillingArgs) -> Result<(String, serde_json::Value), SimulateError> {
    let mut jobs = MillingConfig { seed: args.seed, jobs: args.jobs, start_ms: args.start }.rows()?;
    let count = rows::one_file(&args.out, |row| jobs.write(row))?;
    if let Some(path) = &args.failures {
        write(path, |out| out.write_all(jobs.failures().as_bytes()))?;
    }
    let failed = jobs.failures().lines().count() - 1;
    let text = format!("{}: {count} jobs, of which {failed} fail", args.out.display());
    Ok((text, json!({ "out": args.out, "rows": count, "failed": failed })))
}

fn summary(out: &Path, truth: &GroundTruth) -> (String, serde_json::Value) {
    let faulty = truth.devices.iter().filter(|d| d.fault.is_some()).count();
    let text = format!(
        "{}: {} rows of {} pumps from {} to {}; {faulty} pumps faulty; {} rows bad, {} late, {} dated ahead",
        out.display(),
        truth.rows,
        truth.devices.len(),
        format_timestamp(truth.start_ms),
        format_timestamp(truth.end_ms),
        truth.bad_rows,
        truth.late_rows,
        truth.future_rows
    );
    let json = json!({
        "out": out, "rows": truth.rows, "devices": truth.devices.len(), "faulty": faulty,
        "bad_rows": truth.bad_rows, "late_rows": truth.late_rows, "future_rows": truth.future_rows,
    });
    (text, json)
}

fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), SimulateError> {
    let attempt = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        fill(&mut out)?;
        out.flush()
    };
    attempt().map_err(|source| SimulateError::Write { path: path.to_path_buf(), source })
}

fn time(text: &str) -> Result<i64, String> {
    parse_timestamp(text.as_bytes()).ok_or_else(|| "write RFC 3339, such as 2026-01-06T08:00:00Z".into())
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).map_err(|e| format!("{e}; write a number and a unit, such as 90s or 2h"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn simulate(words: &[&str]) -> Result<(), SimulateError> {
        run(&Cli::try_parse_from(std::iter::once("simulate").chain(words.iter().copied())).unwrap().args)
    }

    #[test]
    fn files_hold_the_fleet_and_the_truth_counts_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (out, truth) = (path("fleet.ndjson"), path("truth.json"));
        simulate(&[
            "pumps",
            "--out",
            &out,
            "--truth",
            &truth,
            "--duration",
            "20m",
            "--bad-share",
            "0.01",
            "--arrival",
            "arrived",
        ])
        .unwrap();
        let truth: GroundTruth = serde_json::from_str(&std::fs::read_to_string(truth).unwrap()).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert_eq!(text.lines().count() as u64, truth.rows);
        assert_eq!(truth.rows, 40 * 1200);
        let rows: Vec<serde_json::Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        assert_eq!(rows.len() as u64, truth.rows - truth.bad_rows);
        assert!(rows.windows(2).all(|w| w[0]["arrived"].as_i64() <= w[1]["arrived"].as_i64()));

        simulate(&["bench", "--out", &out, "--rows", "1000", "--devices", "10", "--json"]).unwrap();
        assert_eq!(std::fs::metadata(&out).unwrap().len(), 129_000);
    }

    #[test]
    fn a_file_for_each_device_holds_its_rows_without_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let fleet = ["servers", "--devices", "2", "--duration", "1h", "--healthy", "--out"];
        simulate(&[&fleet[..], &[path("all.csv").as_str()]].concat()).unwrap();
        simulate(&[&fleet[..], &[path("deep/{device}.csv").as_str()]].concat()).unwrap();
        let all = std::fs::read_to_string(path("all.csv")).unwrap();
        assert!(all.starts_with("device,timestamp,value\nserver-000,2026-01-06 00:00:00,"), "{all}");
        for device in ["server-000", "server-001"] {
            let own = std::fs::read_to_string(path(&format!("deep/{device}.csv"))).unwrap();
            let named: Vec<&str> = all.lines().filter_map(|l| l.strip_prefix(&format!("{device},"))).collect();
            assert_eq!(own.lines().collect::<Vec<_>>(), [&["timestamp,value"], &named[..]].concat());
            assert_eq!(named.len(), 12);
        }
    }

    #[test]
    fn what_cannot_work_says_so() {
        for what in ["milling", "turbofan", "pumps", "bench"] {
            let error = simulate(&[what, "--out", "no/{device}.csv"]).unwrap_err().to_string();
            assert_eq!(
                error,
                "no/{device}.csv: a file for each device is made of servers, cold-chain, batteries, plant and spacecraft \
                 only; leave {device} out"
            );
        }
        let error = simulate(&["bench", "--out", "/dev/null/at/all"]).unwrap_err().to_string();
        assert!(error.starts_with("/dev/null/at/all: "), "{error}");
        let error =
            simulate(&["pumps", "--out", "/dev/null", "--devices", "1", "--wear", "2"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the fleet cannot be simulated: 2 faulty pumps in a fleet of 1: each pump has one fault at most"
        );
    }
}
