//! Which version of the pipeline a process runs: drives [`ReloadControl`], and what a start and a reload ask of the list of
//! versions, act by act in the order of `pipelines/src/runtime/{generations,reload,session}.rs`.

use avouch_engine::control::lane::LaneState;
use avouch_engine::control::reload::{
    Numbering, ReloadAction, ReloadControl, ReloadEvent, Version, Versions, begins, claims,
};
use avouch_engine::verdict::Hash32;

use super::bugs::Bug;
use super::kafka::Life;
use super::lane_task::LaneTask;
use super::messages::{Answer, Ask, Call, Heard, Task};
use super::versions::{Config, config, hash};
use super::world::World;

type Lanes = [Option<Box<LaneTask>>];

pub struct VersionTask {
    life: Life,
    /// Known once it has begun.
    running: Option<Version>,
    /// Whether lanes of another version may be carried over at the start (`--accept-change`).
    accept: bool,
    control: ReloadControl,
    /// Somebody has asked for a reload (SIGHUP).
    pub asked: bool,
    /// The file, as it was read.
    read: Option<Config>,
    candidate: Option<Version>,
    /// Of which it was said that it is not run.
    failed: Option<Version>,
    list: Versions,
    number: u64,
    phase: u8,
    pub call: Option<Call>,
}

impl VersionTask {
    pub fn new(w: &mut World, life: Life) -> Self {
        Self {
            life,
            running: None,
            accept: w.random.one_in(3),
            // Short enough that a store that hangs is given up within a run.
            control: ReloadControl::new(500 + w.random.below(4_000) as i64, 500 + w.random.below(4_000) as i64),
            asked: false,
            read: None,
            candidate: None,
            failed: None,
            list: Versions::new(),
            number: 0,
            phase: 0,
            call: None,
        }
    }

    pub fn stop(&mut self, w: &mut World, now: i64) {
        self.on(w, ReloadEvent::Stop, now);
    }

    pub fn describe(&self) -> String {
        let numbered = |v: Option<Version>| v.map(|v| (v.number, config(&v.config)));
        format!("runs {:?}, {:?} phase {}", numbered(self.running), self.control, self.phase)
    }

    fn on(&mut self, w: &mut World, event: ReloadEvent, now: i64) {
        let taken = self.control.on(event, clock(w, now));
        w.hold(taken);
    }

    fn ask(&mut self, w: &mut World, ask: Ask) {
        self.call = Some(w.ask((self.life, Task::Version), ask));
    }

    /// One act. False if the process does not start.
    pub fn act(&mut self, w: &mut World, lanes: &mut Lanes, now: i64) -> bool {
        match self.running {
            None => self.begin(w),
            Some(running) => {
                self.reload(w, lanes, running, now);
                true
            }
        }
    }

    fn begin(&mut self, w: &mut World) -> bool {
        let Some(file) = self.read else {
            self.read = w.files[self.life.0];
            return self.read.is_some();
        };
        let has_lanes = w.objects || w.dirs.iter().any(|dir| dir.has_checkpoints());
        let accept = self.accept;
        match self.numbered(w, file, |list, hash| begins(list, &hash, has_lanes, accept)) {
            None => {}
            Some(Ok(number)) => {
                self.running = Some(Version { number, config: hash(file) });
                self.read = None;
            }
            Some(Err(())) => return false,
        }
        true
    }

    fn reload(&mut self, w: &mut World, lanes: &mut Lanes, running: Version, now: i64) {
        // While the run drains, every process is given the newest file and told to reload it; also where it has that file, but
        // under an older number, and so leaves lanes of a version between alone.
        if w.draining
            && let Some(latest) = w.versions.latest().filter(|latest| *latest != running)
        {
            w.files[self.life.0] = Some(config(&latest.config));
            self.asked = true;
        }
        if self.asked && self.control.listens() {
            self.asked = false;
            if self.control.action(clock(w, now)) != ReloadAction::Listen {
                self.on(w, ReloadEvent::Said, now);
            }
            (self.read, self.phase, self.call) = (None, 0, None);
            return self.on(w, ReloadEvent::Asked, now);
        }
        match self.control.action(clock(w, now)) {
            ReloadAction::Listen | ReloadAction::Nothing => {}
            ReloadAction::Prepare => self.prepare(w, running, now),
            ReloadAction::Hold { number } => {
                let mut still = true;
                for lane in lanes.iter_mut().flatten().filter(|l| l.state() == LaneState::Running) {
                    still &= lane.hold(number);
                }
                if still || w.bug == Bug::LanesNotHeld {
                    self.on(w, ReloadEvent::Still, now);
                    // Without a pause in which another lane might be opened.
                    self.change(w, lanes, now);
                }
            }
            ReloadAction::GiveUp => {
                lanes.iter_mut().flatten().for_each(|l| l.go_on());
                self.failed = self.candidate.take().filter(|c| *c != running);
                if w.bug == Bug::FailedReloadRun {
                    self.running = self.failed.or(self.running);
                }
                self.on(w, ReloadEvent::GaveUp, now);
            }
            ReloadAction::Change => self.change(w, lanes, now),
            ReloadAction::AwaitOpened => {
                if lanes.iter().flatten().all(|l| l.has_begun()) {
                    // It is said at once, before the group gives it another lane.
                    self.check_applied(w, lanes, running);
                    self.on(w, ReloadEvent::Opened, now);
                }
            }
            ReloadAction::Applied { .. } => self.on(w, ReloadEvent::Said, now),
        }
    }

    fn change(&mut self, w: &mut World, lanes: &mut Lanes, now: i64) {
        self.running = self.candidate.take().or(self.running);
        self.failed = None;
        for lane in lanes.iter_mut().flatten() {
            if lane.state() == LaneState::Running && !lane.all_durable() {
                w.violate("the pipeline changes at a place that no durable checkpoint covers");
            }
            lane.change(w, now);
        }
        self.on(w, ReloadEvent::Changed, now);
    }

    /// What is said to be done no crash undoes.
    fn check_applied(&self, w: &mut World, lanes: &Lanes, running: Version) {
        for lane in lanes.iter().enumerate().filter(|(_, l)| l.is_some()).map(|(lane, _)| lane) {
            let durable = w.durable_version(lane);
            if durable.is_some_and(|d| d.config != running.config && d.number <= running.number) {
                w.violate(format!(
                    "a reload is said to be done, but lane {lane} would come back under the version before"
                ));
            }
        }
    }

    fn prepare(&mut self, w: &mut World, running: Version, now: i64) {
        let Some(file) = self.read else {
            self.read = w.files[self.life.0];
            if self.read.is_none() {
                self.on(w, ReloadEvent::Refused, now);
            }
            return;
        };
        // It may be wrong in another way, or take too long, which may be after its number was asked for.
        if w.fault(40) {
            return self.on(w, ReloadEvent::Refused, now);
        }
        let own =
            if w.bug == Bug::UnchangedFileIsNew { Version { config: hash(u64::MAX), ..running } } else { running };
        match self.numbered(w, file, |list, hash| claims(list, &own, &hash)) {
            None => {}
            Some(Ok(number)) => {
                self.candidate = Some(Version { number, config: hash(file) });
                self.on(w, ReloadEvent::Prepared, now);
            }
            Some(Err(())) => self.on(w, ReloadEvent::Refused, now),
        }
    }

    /// One act on the way to a version's number.
    fn numbered(
        &mut self,
        w: &mut World,
        file: Config,
        decide: impl Fn(&Versions, Hash32) -> Numbering,
    ) -> Option<Result<u64, ()>> {
        match self.phase {
            0 if w.objects => {
                self.ask(w, Ask::Versions);
                self.phase = 1;
            }
            1 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Versions(list)) => {
                    self.list = list;
                    self.phase = 3;
                }
                _ => self.phase = 0,
            },
            0 => {
                self.list = w.versions.seen();
                self.phase = 2;
            }
            // What another process has just linked may be gone after a power cut: then its number would be given twice.
            2 => {
                if w.bug != Bug::VersionSeenBeforeDurable {
                    w.versions.sync_dir();
                }
                self.phase = 3;
            }
            3 => match decide(&self.list, hash(file)) {
                Numbering::Has(number) => {
                    self.phase = 0;
                    return Some(Ok(number));
                }
                Numbering::Refused(_) => return Some(Err(())),
                Numbering::Put { number, .. } => {
                    self.number = number;
                    let version = Version { number, config: hash(file) };
                    if self.running.is_some_and(|running| running.config == version.config) {
                        w.violate("a file that has not changed began a version");
                    }
                    if w.objects {
                        self.ask(w, Ask::PutVersion(version));
                        self.phase = 4;
                    } else {
                        let over = w.bug == Bug::VersionPutOver;
                        self.phase = if w.versions.put(version, false, over) { 5 } else { 0 };
                    }
                }
            },
            4 => match w.hear(&mut self.call) {
                Heard::Nothing => {}
                Heard::Answer(Answer::Put(true)) => {
                    self.phase = 0;
                    return Some(Ok(self.number));
                }
                // Another process has taken it; or it was we, and the answer was lost: the list says.
                Heard::Answer(_) => self.phase = 0,
                Heard::TimedOut if w.fault(2) => return Some(Err(())),
                Heard::TimedOut => self.phase = 0,
            },
            _ => {
                w.versions.sync_dir();
                self.phase = 0;
                return Some(Ok(self.number));
            }
        }
        None
    }

    /// The version a lane is opened under.
    pub fn opens(&self, w: &mut World) -> Option<Version> {
        if self.failed.is_some() && self.failed == self.running {
            w.violate("a lane is opened under a version whose reload was said to have failed");
        }
        self.running
    }
}

/// In peace everybody answers well within the limits of a reload.
fn clock(w: &World, now: i64) -> i64 {
    w.drained_from.map_or(now, |from| from + (now - from) / 100)
}
