//! Every metric, declared once: name, kind, labels and help. Docs and alert rules are checked against this list.
//!
//! Labels are bounded: `lane` is the source partition; a device is never a label.

use avouch_connectors::delivery::DownKind;
use avouch_connectors::store::RemoteStats;
use avouch_engine::control::pace::Held;
use avouch_engine::dead_letter::DeadReason;
use avouch_engine::lane::Counters;
use avouch_engine::verdict::{Severity, VerdictRecord, class};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::labels::Outcome;

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution.
    Histogram,
}

/// A metric's declaration.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// Its full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

macro_rules! declarations {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $id: Declaration = Declaration { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All metrics, in the order of the documentation.
        pub const DECLARATIONS: &[Declaration] = &[$($id),*];
    };
}

declarations! {
    ROWS_IN: Counter "avouch_lane_rows_in_total" ["lane"] "Rows read from the source partition; a record that cannot be decoded counts as one.";
    ROWS_USED: Counter "avouch_lane_rows_used_total" ["lane"] "Rows admitted and computed on; rows in = rows used + dead letters.";
    DEAD: Counter "avouch_lane_dead_letters_total" ["lane", "reason"] "Rows that died, by reason.";
    VERDICTS: Counter "avouch_lane_verdicts_total" ["lane", "severity"] "Verdicts appended to the verdict log, by severity.";
    CLASSES: Counter "avouch_lane_verdict_classes_total" ["lane", "class"] "Verdicts appended to the verdict log since the process started, by class.";
    LABELS: Counter "avouch_lane_label_requests_total" ["lane", "outcome"] "Labels of people that the lane found since the process started: taken into the log, repeated (the log has them already), or refused.";
    WATERMARK: Gauge "avouch_lane_watermark_timestamp_seconds" ["lane"] "Event time up to which windows are closed, Unix seconds.";
    NEXT_OFFSET: Gauge "avouch_lane_next_offset" ["lane"] "Offset of the next record to read.";
    LAG: Gauge "avouch_lane_lag_records" ["lane"] "Offsets between the next record to read and the end of the partition or journal; absent for files, whose end is known when it is reached.";
    CHECKPOINT_OFFSET: Gauge "avouch_lane_checkpoint_offset" ["lane"] "Offset of the next record to read after a restart.";
    SCHEMA_ERRORS: Counter "avouch_lane_schema_errors_total" ["lane"] "Requests to the schema registry without an answer; the lane waits and asks again.";
    DEVICES: Gauge "avouch_lane_devices" ["lane"] "Devices the lane remembers.";
    EVICTED: Counter "avouch_lane_devices_evicted_total" ["lane"] "Devices forgotten because they were idle for longer than device_ttl.";
    SIGNED_GAPS: Counter "avouch_lane_signed_gaps_total" ["lane"] "Numbers that devices passed over between accepted signed readings: readings that were lost, refused or never sent.";
    IDLE: Gauge "avouch_lane_idle" ["lane"] "1 while the partition is idle and its time goes on by the clock, else 0.";
    TICKS: Counter "avouch_lane_ticks_total" ["lane"] "Recorded ticks: times that an idle partition's windows closed by the clock.";
    LOG_SIZE: Gauge "avouch_log_size_entries" ["lane"] "Verdicts in the log that a durable checkpoint covers.";
    CHECKPOINT_TIME: Gauge "avouch_checkpoint_timestamp_seconds" ["lane"] "When the last checkpoint became durable, Unix seconds.";
    CHECKPOINT_DURATION: Histogram "avouch_checkpoint_duration_seconds" ["lane"] "How long the lane stood still for a checkpoint.";
    CHECKPOINT_BYTES: Gauge "avouch_checkpoint_state_bytes" ["lane"] "Size of the lane state in the last checkpoint.";
    CHECKPOINT_WRITE: Histogram "avouch_checkpoint_write_duration_seconds" ["lane"] "How long a checkpoint took until it was durable, in the object store too where there is one; the lane goes on meanwhile.";
    CHECKPOINT_NEW: Gauge "avouch_checkpoint_new_state_bytes" ["lane"] "How much of the lane state the last checkpoint wrote; the rest had not changed.";
    CHECKPOINT_DAMAGED: Counter "avouch_checkpoint_damaged_total" ["lane"] "Checkpoints that could not be used when the lane was opened, so that an earlier one was.";
    STORE_ERRORS: Counter "avouch_checkpoint_store_errors_total" ["lane"] "Requests to the object store that failed; each is tried again.";
    STORE_FAILING: Gauge "avouch_checkpoint_store_failing" ["lane"] "1 while the object store does not do what a checkpoint needs; the lane stops before its next checkpoint.";
    STORE_UPLOADED: Counter "avouch_checkpoint_store_uploaded_bytes_total" ["lane"] "Bytes put into the object store since the process started.";
    SINK_POSITION: Gauge "avouch_sink_position" ["lane", "sink"] "Index of the next log entry or dead letter the sink will take.";
    SINK_RECORDS: Counter "avouch_sink_records_total" ["lane", "sink"] "Records delivered by the sink since the process started.";
    SINK_LAG: Gauge "avouch_sink_lag_entries" ["lane", "sink"] "Committed log entries or dead letters the sink has not taken yet.";
    SINK_ERRORS: Counter "avouch_sink_errors_total" ["lane", "sink", "kind"] "Failed deliveries, by kind; each is tried again.";
    SINK_REFUSED: Counter "avouch_sink_refused_total" ["lane", "sink"] "Verdicts the sink refused; each is kept and becomes a dead letter with the reason refused.";
    SINK_RETRY: Gauge "avouch_sink_next_retry_timestamp_seconds" ["lane", "sink"] "When a sink that is down is tried again, Unix seconds; 0 while it is not waiting.";
    EARLY_RESULTS: Counter "avouch_early_results_total" ["lane", "sink"] "Early results that the sink took since the process started.";
    EARLY_DROPPED: Counter "avouch_early_dropped_total" ["lane", "sink"] "Early results that the sink did not get: it was too slow for them, down, or refused them. None is tried again.";
    ANCHOR_SIZE: Gauge "avouch_anchor_size_entries" ["lane"] "Log size in the contract at the latest block.";
    ANCHOR_FINAL: Gauge "avouch_anchor_finalized_size_entries" ["lane"] "Log size in the contract at the finalized block.";
    ANCHOR_PENDING: Gauge "avouch_anchor_pending_entries" ["lane"] "Verdicts in the log that no anchor covers yet.";
    ANCHOR_DELAY: Gauge "avouch_anchor_merge_delay_seconds" ["lane"] "How long the oldest verdict without an anchor has waited.";
    ANCHOR_DELAY_MAX: Gauge "avouch_anchor_max_merge_delay_seconds" [] "The promised maximum merge delay.";
    ANCHORS: Counter "avouch_anchor_checkpoints_total" ["lane"] "Checkpoints written to the contract since the process started.";
    ANCHOR_GAS: Counter "avouch_anchor_gas_used_total" ["lane"] "Gas used by anchors since the process started.";
    ANCHOR_ERRORS: Counter "avouch_anchor_errors_total" ["lane"] "Failed attempts to anchor; each is tried again.";
    ANCHOR_HELD: Gauge "avouch_anchor_held" ["lane", "reason"] "1 while an anchor that is due waits for this reason: ceiling (gas is dearer than may be offered), budget (of the day, spent), dear (than usual) or sparing (the budget has to last the day).";
    ANCHOR_FEE: Gauge "avouch_anchor_gas_fee_ether" [] "What a unit of gas costs now, where `anchor.gas` limits it.";
    ANCHOR_SPENT: Gauge "avouch_anchor_gas_spent_ether" [] "Spent for gas on the present day (UTC), or reserved for what is on its way, where `anchor.gas` limits it.";
    ANCHOR_BUDGET: Gauge "avouch_anchor_gas_budget_ether" [] "What may be spent for gas on a day, where `anchor.gas.per_day` limits it.";
    REFERENCE_ROWS: Gauge "avouch_reference_rows" ["reference"] "Rows of the reference table in use; of a source's keys (source.identity), how many devices they name.";
    REFERENCE_CHANGES: Counter "avouch_reference_changes_total" ["reference"] "Changed reference files, or keys of devices, taken into use since the process started.";
    REFERENCE_ERRORS: Counter "avouch_reference_errors_total" ["reference"] "Changed reference files, or keys of devices, that could not be used; the old ones stay.";
    LANES_OWNED: Gauge "avouch_lanes_owned" [] "Lanes that this process runs.";
    LANES_OPENING: Gauge "avouch_lanes_opening" [] "Lanes given to this process that are not running: restoring, or waiting for the process that had them.";
    LANE_WAITS: Counter "avouch_lane_opening_waits_total" [] "Times a lane had to wait because another process still had its store.";
    LANE_OPENING: Histogram "avouch_lane_opening_seconds" [] "From a lane being given to this process until it could run.";
    REBALANCES: Counter "avouch_group_rebalances_total" ["change"] "Changes of this process's lanes by the consumer group: given, taken, or lost because it was silent too long.";
    ANCHOR_LEASE: Gauge "avouch_anchor_lease" [] "1 if this process anchors for all that share its state directory, 0 if another one does.";
    MQTT_CONNECTED: Gauge "avouch_mqtt_connected" ["source"] "1 while the connection to the MQTT broker stands.";
    MQTT_MESSAGES: Counter "avouch_mqtt_messages_total" ["source"] "Messages written to the journal since the process started.";
    MQTT_REDELIVERIES: Counter "avouch_mqtt_redeliveries_total" ["source"] "Redelivered messages that the journal held already.";
    MQTT_FAILURES: Counter "avouch_mqtt_connection_failures_total" ["source"] "Connections to the MQTT broker that failed or were lost; each is tried again.";
    JOURNAL_BYTES: Gauge "avouch_journal_size_bytes" ["source"] "Size of the journal on disk.";
    JOURNAL_END: Gauge "avouch_journal_end_offset" ["source"] "Offset the next message will have in the journal; the lane's next offset follows it.";
    MOVED: Counter "avouch_repartition_records_total" [] "Records that this process has written to the topic they are repartitioned through, in transactions that were committed.";
    MOVES_ABORTED: Counter "avouch_repartition_transactions_aborted_total" [] "Transactions of the repartitioning that were aborted; what was in them is read again.";
    MOVE_LAG: Gauge "avouch_repartition_lag_records" ["partition"] "Offsets of a source partition that this process repartitions and has not committed yet.";
    RELOAD_FAILED: Gauge "avouch_reload_failed" [] "1 after a reload that failed, so that the pipeline runs on as it was, until one succeeds; else 0.";
    RELOADS: Counter "avouch_reloads_total" ["outcome"] "Reloads of the pipeline file since the process started, by outcome: applied or failed.";
    DROPPED_STATES: Counter "avouch_lane_dropped_states_total" ["lane"] "States of steps that were dropped because the pipeline changed, since the process started.";
    BUILD: Gauge "avouch_build_info" ["version"] "Always 1; its label is the version that runs.";
}

/// The metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What `/metrics` shows.
    pub registry: Registry,
    rows_in: IntCounterVec,
    rows_used: IntCounterVec,
    dead: IntCounterVec,
    verdicts: IntCounterVec,
    classes: IntCounterVec,
    labels: IntCounterVec,
    watermark: GaugeVec,
    next_offset: IntGaugeVec,
    lag: IntGaugeVec,
    checkpoint_offset: IntGaugeVec,
    schema_errors: IntCounterVec,
    devices: IntGaugeVec,
    evicted: IntCounterVec,
    signed_gaps: IntCounterVec,
    idle: IntGaugeVec,
    ticks: IntCounterVec,
    log_size: IntGaugeVec,
    checkpoint_time: GaugeVec,
    checkpoint_duration: HistogramVec,
    checkpoint_bytes: IntGaugeVec,
    checkpoint_write: HistogramVec,
    checkpoint_new: IntGaugeVec,
    checkpoint_damaged: IntCounterVec,
    store_errors: IntCounterVec,
    store_failing: IntGaugeVec,
    store_uploaded: IntCounterVec,
    sink_position: IntGaugeVec,
    sink_records: IntCounterVec,
    sink_lag: IntGaugeVec,
    sink_errors: IntCounterVec,
    sink_refused: IntCounterVec,
    sink_retry: GaugeVec,
    early_results: IntCounterVec,
    early_dropped: IntCounterVec,
    anchor_size: IntGaugeVec,
    anchor_final: IntGaugeVec,
    anchor_pending: IntGaugeVec,
    anchor_delay: GaugeVec,
    anchor_delay_max: GaugeVec,
    anchors: IntCounterVec,
    anchor_gas: IntCounterVec,
    anchor_errors: IntCounterVec,
    anchor_held: IntGaugeVec,
    anchor_fee: GaugeVec,
    anchor_spent: GaugeVec,
    anchor_budget: GaugeVec,
    reference_rows: IntGaugeVec,
    reference_changes: IntCounterVec,
    reference_errors: IntCounterVec,
    /// [`LANES_OWNED`].
    pub lanes_owned: IntGauge,
    /// [`LANES_OPENING`].
    pub lanes_opening: IntGauge,
    /// [`LANE_WAITS`].
    pub lane_waits: IntCounter,
    /// [`LANE_OPENING`].
    pub lane_opening: Histogram,
    /// [`REBALANCES`].
    pub rebalances: IntCounterVec,
    /// [`ANCHOR_LEASE`].
    pub anchor_lease: IntGauge,
    mqtt_connected: IntGaugeVec,
    mqtt_messages: IntCounterVec,
    mqtt_redeliveries: IntCounterVec,
    mqtt_failures: IntCounterVec,
    journal_bytes: IntGaugeVec,
    journal_end: IntGaugeVec,
    /// [`MOVED`].
    pub moved: IntCounter,
    /// [`MOVES_ABORTED`].
    pub moves_aborted: IntCounter,
    move_lag: IntGaugeVec,
    /// [`RELOAD_FAILED`].
    pub reload_failed: IntGauge,
    /// [`RELOADS`].
    pub reloads: IntCounterVec,
    /// [`DROPPED_STATES`].
    pub dropped_states: IntCounterVec,
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, c: C) -> prometheus::Result<C> {
    registry.register(Box::new(c.clone()))?;
    Ok(c)
}

impl Metrics {
    /// Registers all metrics. Errors would mean that two have one name.
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        let opts = |d: Declaration| Opts::new(d.name, d.help);
        let counter = |d: Declaration| register(&r, IntCounterVec::new(opts(d), d.labels)?);
        let int = |d: Declaration| register(&r, IntGaugeVec::new(opts(d), d.labels)?);
        let float = |d: Declaration| register(&r, GaugeVec::new(opts(d), d.labels)?);
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 14)?;
        let duration = HistogramOpts::new(CHECKPOINT_DURATION.name, CHECKPOINT_DURATION.help).buckets(buckets.clone());
        let writing = HistogramOpts::new(CHECKPOINT_WRITE.name, CHECKPOINT_WRITE.help).buckets(buckets);
        let buckets = prometheus::exponential_buckets(0.01, 2.0, 16)?;
        let opening = HistogramOpts::new(LANE_OPENING.name, LANE_OPENING.help).buckets(buckets);
        let rebalances = counter(REBALANCES)?;
        for change in ["given", "taken", "lost"] {
            rebalances.with_label_values(&[change]);
        }
        let reloads = counter(RELOADS)?;
        for outcome in ["applied", "failed"] {
            reloads.with_label_values(&[outcome]);
        }
        int(BUILD)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            rows_in: counter(ROWS_IN)?,
            rows_used: counter(ROWS_USED)?,
            dead: counter(DEAD)?,
            verdicts: counter(VERDICTS)?,
            classes: counter(CLASSES)?,
            labels: counter(LABELS)?,
            watermark: float(WATERMARK)?,
            next_offset: int(NEXT_OFFSET)?,
            lag: int(LAG)?,
            checkpoint_offset: int(CHECKPOINT_OFFSET)?,
            schema_errors: counter(SCHEMA_ERRORS)?,
            devices: int(DEVICES)?,
            evicted: counter(EVICTED)?,
            signed_gaps: counter(SIGNED_GAPS)?,
            idle: int(IDLE)?,
            ticks: counter(TICKS)?,
            log_size: int(LOG_SIZE)?,
            checkpoint_time: float(CHECKPOINT_TIME)?,
            checkpoint_duration: register(&r, HistogramVec::new(duration, CHECKPOINT_DURATION.labels)?)?,
            checkpoint_bytes: int(CHECKPOINT_BYTES)?,
            checkpoint_write: register(&r, HistogramVec::new(writing, CHECKPOINT_WRITE.labels)?)?,
            checkpoint_new: int(CHECKPOINT_NEW)?,
            checkpoint_damaged: counter(CHECKPOINT_DAMAGED)?,
            store_errors: counter(STORE_ERRORS)?,
            store_failing: int(STORE_FAILING)?,
            store_uploaded: counter(STORE_UPLOADED)?,
            sink_position: int(SINK_POSITION)?,
            sink_records: counter(SINK_RECORDS)?,
            sink_lag: int(SINK_LAG)?,
            sink_errors: counter(SINK_ERRORS)?,
            sink_refused: counter(SINK_REFUSED)?,
            sink_retry: float(SINK_RETRY)?,
            early_results: counter(EARLY_RESULTS)?,
            early_dropped: counter(EARLY_DROPPED)?,
            anchor_size: int(ANCHOR_SIZE)?,
            anchor_final: int(ANCHOR_FINAL)?,
            anchor_pending: int(ANCHOR_PENDING)?,
            anchor_delay: float(ANCHOR_DELAY)?,
            anchor_delay_max: float(ANCHOR_DELAY_MAX)?,
            anchors: counter(ANCHORS)?,
            anchor_gas: counter(ANCHOR_GAS)?,
            anchor_errors: counter(ANCHOR_ERRORS)?,
            anchor_held: int(ANCHOR_HELD)?,
            anchor_fee: float(ANCHOR_FEE)?,
            anchor_spent: float(ANCHOR_SPENT)?,
            anchor_budget: float(ANCHOR_BUDGET)?,
            reference_rows: int(REFERENCE_ROWS)?,
            reference_changes: counter(REFERENCE_CHANGES)?,
            reference_errors: counter(REFERENCE_ERRORS)?,
            lanes_owned: register(&r, IntGauge::with_opts(opts(LANES_OWNED))?)?,
            lanes_opening: register(&r, IntGauge::with_opts(opts(LANES_OPENING))?)?,
            lane_waits: register(&r, IntCounter::with_opts(opts(LANE_WAITS))?)?,
            lane_opening: register(&r, Histogram::with_opts(opening)?)?,
            rebalances,
            anchor_lease: register(&r, IntGauge::with_opts(opts(ANCHOR_LEASE))?)?,
            mqtt_connected: int(MQTT_CONNECTED)?,
            mqtt_messages: counter(MQTT_MESSAGES)?,
            mqtt_redeliveries: counter(MQTT_REDELIVERIES)?,
            mqtt_failures: counter(MQTT_FAILURES)?,
            journal_bytes: int(JOURNAL_BYTES)?,
            journal_end: int(JOURNAL_END)?,
            moved: register(&r, IntCounter::with_opts(opts(MOVED))?)?,
            moves_aborted: register(&r, IntCounter::with_opts(opts(MOVES_ABORTED))?)?,
            move_lag: int(MOVE_LAG)?,
            reload_failed: register(&r, IntGauge::with_opts(opts(RELOAD_FAILED))?)?,
            reloads,
            dropped_states: counter(DROPPED_STATES)?,
            registry: r,
        })
    }

    /// Shows how a reload ended.
    pub fn reloaded(&self, applied: bool) {
        self.reloads.with_label_values(&[if applied { "applied" } else { "failed" }]).inc();
        self.reload_failed.set(i64::from(!applied));
    }

    /// Those of one lane, with every label value present from the start so that rates do not miss the first event.
    pub fn lane(&self, lane: i32) -> LaneMetrics {
        let lane = lane.to_string();
        let l = [lane.as_str()];
        self.dropped_states.with_label_values(&l);
        LaneMetrics {
            rows_in: self.rows_in.with_label_values(&l),
            rows_used: self.rows_used.with_label_values(&l),
            dead: DeadReason::ALL.map(|r| self.dead.with_label_values(&[lane.as_str(), r.name()])),
            verdicts: Severity::ALL.map(|s| self.verdicts.with_label_values(&[lane.as_str(), s.name()])),
            classes: class::ALL
                .map(|c| self.classes.with_label_values(&[lane.as_str(), class::name(c).unwrap_or("unknown")])),
            labels: Outcome::ALL.map(|o| self.labels.with_label_values(&[lane.as_str(), o.name()])),
            watermark: self.watermark.with_label_values(&l),
            next_offset: self.next_offset.with_label_values(&l),
            lag: self.lag.clone(),
            lane: lane.clone(),
            checkpoint_offset: self.checkpoint_offset.with_label_values(&l),
            schema_errors: self.schema_errors.with_label_values(&l),
            devices: self.devices.with_label_values(&l),
            evicted: self.evicted.with_label_values(&l),
            signed_gaps: self.signed_gaps.with_label_values(&l),
            idle: self.idle.with_label_values(&l),
            ticks: self.ticks.with_label_values(&l),
            log_size: self.log_size.with_label_values(&l),
            checkpoint_time: self.checkpoint_time.with_label_values(&l),
            checkpoint_duration: self.checkpoint_duration.with_label_values(&l),
            checkpoint_bytes: self.checkpoint_bytes.with_label_values(&l),
            checkpoint_write_duration: self.checkpoint_write.with_label_values(&l),
            checkpoint_new_bytes: self.checkpoint_new.with_label_values(&l),
            checkpoint_damaged: self.checkpoint_damaged.with_label_values(&l),
            store_errors: self.store_errors.with_label_values(&l),
            store_failing: self.store_failing.with_label_values(&l),
            store_uploaded: self.store_uploaded.with_label_values(&l),
            shown: Counters::default(),
        }
    }

    /// Forgets a lane that another process has now: shown here as well, its counters would count twice.
    pub fn forget(&self, lane: i32) {
        let lane = lane.to_string();
        let l = [lane.as_str()];
        let counters = [
            &self.rows_in,
            &self.rows_used,
            &self.dead,
            &self.verdicts,
            &self.classes,
            &self.labels,
            &self.sink_records,
            &self.sink_errors,
            &self.sink_refused,
            &self.early_results,
            &self.early_dropped,
        ];
        for vec in counters {
            forget(vec, &lane);
        }
        for vec in [
            &self.next_offset,
            &self.lag,
            &self.checkpoint_offset,
            &self.devices,
            &self.log_size,
            &self.checkpoint_bytes,
            &self.sink_position,
            &self.sink_lag,
        ] {
            forget(vec, &lane);
        }
        for vec in [&self.watermark, &self.checkpoint_time, &self.sink_retry] {
            forget(vec, &lane);
        }
        // An error means that there was none.
        let _ = self.checkpoint_duration.remove_label_values(&l);
    }

    /// Those of one sink of one lane.
    pub fn sink(&self, lane: i32, sink: &str) -> SinkMetrics {
        let lane = lane.to_string();
        let l = [lane.as_str(), sink];
        SinkMetrics {
            position: self.sink_position.with_label_values(&l),
            records: self.sink_records.with_label_values(&l),
            lag: self.sink_lag.with_label_values(&l),
            next_retry: self.sink_retry.with_label_values(&l),
            errors: DownKind::ALL.map(|k| self.sink_errors.with_label_values(&[l[0], l[1], k.name()])),
            refused: self.sink_refused.with_label_values(&l),
        }
    }

    /// Those of the early results of one sink of one lane.
    pub fn early(&self, lane: i32, sink: &str) -> EarlyMetrics {
        let lane = lane.to_string();
        let l = [lane.as_str(), sink];
        EarlyMetrics {
            results: self.early_results.with_label_values(&l),
            dropped: self.early_dropped.with_label_values(&l),
        }
    }

    /// Shows the maximum merge delay that is promised.
    pub fn anchor_delay_max(&self, seconds: f64) {
        self.anchor_delay_max.with_label_values::<&str>(&[]).set(seconds);
    }

    /// Shows what may be spent for gas on a day, in wei.
    pub fn anchor_budget(&self, wei: u128) {
        self.anchor_budget.with_label_values::<&str>(&[]).set(ether(wei));
    }

    /// Shows what a unit of gas costs now, and what was spent today, in wei.
    pub fn anchor_price(&self, fee: u128, spent: u128) {
        self.anchor_fee.with_label_values::<&str>(&[]).set(ether(fee));
        self.anchor_spent.with_label_values::<&str>(&[]).set(ether(spent));
    }

    /// Those of one reference table.
    pub fn reference(&self, name: &str) -> ReferenceMetrics {
        ReferenceMetrics {
            rows: self.reference_rows.with_label_values(&[name]),
            changes: self.reference_changes.with_label_values(&[name]),
            errors: self.reference_errors.with_label_values(&[name]),
        }
    }

    /// Those of the bridge that fills a source's journal.
    pub fn bridge(&self, source: &str) -> BridgeMetrics {
        let l = [source];
        BridgeMetrics {
            connected: self.mqtt_connected.with_label_values(&l),
            messages: self.mqtt_messages.with_label_values(&l),
            redeliveries: self.mqtt_redeliveries.with_label_values(&l),
            failures: self.mqtt_failures.with_label_values(&l),
            journal_bytes: self.journal_bytes.with_label_values(&l),
            journal_end: self.journal_end.with_label_values(&l),
        }
    }

    /// How far the repartitioning of a source partition is behind; `None` once another process has it.
    pub fn move_lag(&self, partition: i32, records: Option<i64>) {
        let label = partition.to_string();
        match records {
            Some(n) => self.move_lag.with_label_values(&[label.as_str()]).set(n),
            // An error means that it is gone already.
            None => drop(self.move_lag.remove_label_values(&[label.as_str()])),
        }
    }

    /// Those of one lane's anchors.
    pub fn anchor(&self, lane: i32) -> AnchorMetrics {
        let lane = lane.to_string();
        let l = [lane.as_str()];
        AnchorMetrics {
            size: self.anchor_size.with_label_values(&l),
            finalized: self.anchor_final.with_label_values(&l),
            pending: self.anchor_pending.with_label_values(&l),
            delay: self.anchor_delay.with_label_values(&l),
            anchors: self.anchors.with_label_values(&l),
            gas: self.anchor_gas.with_label_values(&l),
            errors: self.anchor_errors.with_label_values(&l),
            held: Held::ALL.map(|held| (held, self.anchor_held.with_label_values(&[l[0], held.name()]))),
        }
    }
}

fn ether(wei: u128) -> f64 {
    wei as f64 / 1e18
}

/// Removes what a metric shows of a lane, whatever its other labels are.
fn forget<T: prometheus::core::MetricVecBuilder>(vec: &prometheus::core::MetricVec<T>, lane: &str) {
    use prometheus::core::Collector as _;
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: std::collections::HashMap<&str, &str> =
                metric.get_label().iter().map(|l| (l.name(), l.value())).collect();
            if labels.get("lane") == Some(&lane) {
                // An error means that it is gone already.
                let _ = vec.remove(&labels);
            }
        }
    }
}

/// Metrics of a lane.
#[derive(Debug)]
pub struct LaneMetrics {
    rows_in: IntCounter,
    rows_used: IntCounter,
    dead: [IntCounter; DeadReason::ALL.len()],
    verdicts: [IntCounter; Severity::ALL.len()],
    classes: [IntCounter; class::ALL.len()],
    labels: [IntCounter; Outcome::ALL.len()],
    /// [`WATERMARK`], seconds.
    pub watermark: Gauge,
    /// [`NEXT_OFFSET`].
    pub next_offset: IntGauge,
    /// [`LAG`], of which a lane that does not know it has none.
    lag: IntGaugeVec,
    lane: String,
    /// [`CHECKPOINT_OFFSET`].
    pub checkpoint_offset: IntGauge,
    /// [`SCHEMA_ERRORS`].
    pub schema_errors: IntCounter,
    /// [`DEVICES`].
    pub devices: IntGauge,
    /// [`IDLE`].
    pub idle: IntGauge,
    ticks: IntCounter,
    evicted: IntCounter,
    signed_gaps: IntCounter,
    /// [`LOG_SIZE`].
    pub log_size: IntGauge,
    /// [`CHECKPOINT_TIME`].
    pub checkpoint_time: Gauge,
    /// [`CHECKPOINT_DURATION`].
    pub checkpoint_duration: Histogram,
    /// [`CHECKPOINT_BYTES`].
    pub checkpoint_bytes: IntGauge,
    /// [`CHECKPOINT_WRITE`].
    pub checkpoint_write_duration: Histogram,
    /// [`CHECKPOINT_NEW`].
    pub checkpoint_new_bytes: IntGauge,
    /// [`CHECKPOINT_DAMAGED`].
    pub checkpoint_damaged: IntCounter,
    store_errors: IntCounter,
    store_failing: IntGauge,
    store_uploaded: IntCounter,
    shown: Counters,
}

impl LaneMetrics {
    /// Counts verdicts that were appended to the log, by class.
    pub fn appended(&self, verdicts: &[VerdictRecord]) {
        for v in verdicts {
            if let Some(c) = self.classes.get(usize::from(v.verdict.class)) {
                c.inc();
            }
        }
    }

    /// Counts a label by what became of it.
    pub fn label(&self, outcome: Outcome) {
        self.labels[outcome as usize].inc();
    }

    /// Brings the counters up to those of the lane, which go on over restarts.
    pub fn show(&mut self, now: &Counters) {
        let before = std::mem::replace(&mut self.shown, *now);
        self.rows_in.inc_by(now.rows_in - before.rows_in);
        self.rows_used.inc_by(now.rows_used - before.rows_used);
        self.evicted.inc_by(now.evicted - before.evicted);
        self.ticks.inc_by(now.ticks - before.ticks);
        for (i, c) in self.dead.iter().enumerate() {
            c.inc_by(now.dead[i] - before.dead[i]);
        }
        for (i, c) in self.verdicts.iter().enumerate() {
            c.inc_by(now.verdicts[i] - before.verdicts[i]);
        }
    }
}

impl LaneMetrics {
    /// Brings the counter of gaps between signed readings up to that of the lane, which goes on over restarts.
    pub fn show_gaps(&self, now: u64) {
        self.signed_gaps.inc_by(now.saturating_sub(self.signed_gaps.get()));
    }

    /// How far the lane is behind.
    pub fn lag(&self, records: i64) {
        self.lag.with_label_values(&[self.lane.as_str()]).set(records);
    }

    /// Brings what is shown of the object store up to what goes on with it.
    pub fn show_remote(&mut self, now: &RemoteStats) {
        self.store_errors.inc_by(now.errors().saturating_sub(self.store_errors.get()));
        self.store_uploaded.inc_by(now.uploaded().saturating_sub(self.store_uploaded.get()));
        self.store_failing.set(i64::from(now.is_failing()));
    }
}

/// Metrics of a sink of a lane.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// [`SINK_POSITION`].
    pub position: IntGauge,
    /// [`SINK_RECORDS`].
    pub records: IntCounter,
    /// [`SINK_LAG`].
    pub lag: IntGauge,
    /// [`SINK_RETRY`].
    pub next_retry: Gauge,
    errors: [IntCounter; DownKind::ALL.len()],
    refused: IntCounter,
}

impl SinkMetrics {
    /// Counts a failed delivery.
    pub fn error(&self, kind: DownKind) {
        self.errors[kind as usize].inc();
    }

    /// Brings the counter up to what is kept, which goes on over restarts.
    pub fn refused(&self, kept: u64) {
        self.refused.inc_by(kept.saturating_sub(self.refused.get()));
    }
}

/// Metrics of the early results of a sink of a lane.
#[derive(Debug, Clone)]
pub struct EarlyMetrics {
    /// [`EARLY_RESULTS`].
    pub results: IntCounter,
    /// [`EARLY_DROPPED`].
    pub dropped: IntCounter,
}

/// Metrics of a reference table.
#[derive(Debug, Clone)]
pub struct ReferenceMetrics {
    /// [`REFERENCE_ROWS`].
    pub rows: IntGauge,
    /// [`REFERENCE_CHANGES`].
    pub changes: IntCounter,
    /// [`REFERENCE_ERRORS`].
    pub errors: IntCounter,
}

/// Metrics of a bridge and its journal.
#[derive(Debug, Clone)]
pub struct BridgeMetrics {
    /// [`MQTT_CONNECTED`].
    pub connected: IntGauge,
    /// [`MQTT_MESSAGES`].
    pub messages: IntCounter,
    /// [`MQTT_REDELIVERIES`].
    pub redeliveries: IntCounter,
    /// [`MQTT_FAILURES`].
    pub failures: IntCounter,
    /// [`JOURNAL_BYTES`].
    pub journal_bytes: IntGauge,
    /// [`JOURNAL_END`].
    pub journal_end: IntGauge,
}

/// Metrics of a lane's anchors.
#[derive(Debug, Clone)]
pub struct AnchorMetrics {
    /// [`ANCHOR_SIZE`].
    pub size: IntGauge,
    /// [`ANCHOR_FINAL`].
    pub finalized: IntGauge,
    /// [`ANCHOR_PENDING`].
    pub pending: IntGauge,
    /// [`ANCHOR_DELAY`].
    pub delay: Gauge,
    /// [`ANCHORS`].
    pub anchors: IntCounter,
    /// [`ANCHOR_GAS`].
    pub gas: IntCounter,
    /// [`ANCHOR_ERRORS`].
    pub errors: IntCounter,
    /// [`ANCHOR_HELD`].
    pub held: [(Held, IntGauge); 4],
}
