//! `avouch top`: a running pipeline at a glance.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::http::{Process, ProcessError};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::fail;
use super::tap::process;
use crate::top::{Column, Figures, Screen, Told, View, plain, samples};

/// How often figures are asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How long keys are waited for at a time.
const KEYS: Duration = Duration::from_millis(100);

/// Watch a running pipeline: rates, lag, delays, dead letters, verdicts, log and anchors of each lane, from its /metrics
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// The pipeline file, for its `http.listen`; or the URL of the process, such as http://127.0.0.1:9464
    #[arg(value_name = "PIPELINE.toml|URL")]
    pub place: String,

    /// Print one plain table of one second, and end
    #[arg(long)]
    pub once: bool,
}

/// Shows the screen until it is quit, or prints the table.
pub fn run(args: &TopArgs) -> ExitCode {
    let process = match process(&args.place) {
        Ok(process) => process,
        Err(code) => return code,
    };
    if !args.once && !std::io::stdout().is_terminal() {
        return fail(false, "this draws on a terminal, and standard output is none; --once prints a plain table");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(false, format!("cannot start the async runtime: {e}")),
    };
    let outcome = runtime.block_on(async {
        // Before the screen is taken: an error here is best read as a line.
        let before = look(&process).await?;
        match args.once {
            true => once(&process, before).await,
            false => watch(&process, before).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(false, e),
    }
}

/// Figures, and when they were asked for.
struct Looked {
    figures: Figures,
    at: Instant,
}

async fn look(process: &Process) -> Result<Looked, String> {
    let at = Instant::now();
    let text = process.metrics().await.map_err(|e: ProcessError| e.to_string())?;
    let figures = Figures::of(&samples(&text).map_err(|e| e.to_string())?);
    Ok(Looked { figures, at })
}

fn view(now: &Looked, before: Option<&Looked>) -> View {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let before = before.map(|b| (&b.figures, now.at.duration_since(b.at).as_secs_f64()));
    View::new(now.figures.clone(), before, clock)
}

async fn once(process: &Process, before: Looked) -> Result<(), String> {
    tokio::time::sleep(EVERY).await;
    let now = look(process).await?;
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = std::io::stdout().write_all(plain(&view(&now, Some(&before)), Column::Lane, false).as_bytes());
    Ok(())
}

/// Gives the terminal back however its owner ends. (A panic gives it back by ratatui's hook.)
struct Borrowed(DefaultTerminal);

impl Drop for Borrowed {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(process: &Process, first: Looked) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("the terminal cannot be used: {e}; --once prints a plain table");
    let mut terminated = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(cannot)?;
    let mut terminal = Borrowed(ratatui::try_init().map_err(cannot)?);
    let mut keys = keys();
    let mut screen = Screen::new(process.address(), view(&first, None));
    let mut last = first;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is at once, and these figures are there.
    tick.tick().await;
    loop {
        terminal.0.draw(|frame| screen.draw(frame)).map_err(cannot)?;
        tokio::select! {
            _ = tick.tick() => match look(process).await {
                Ok(now) => {
                    screen.show(view(&now, Some(&last)));
                    last = now;
                }
                Err(why) => screen.trouble(why),
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if screen.key(key) == Told::Quit => return Ok(()),
                // Another size: it is drawn again.
                Some(_) => {}
                None => return Err("the terminal is gone".to_owned()),
            },
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// What happens on the terminal, until nobody listens.
fn keys() -> mpsc::Receiver<Event> {
    let (tell, told) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            match event::poll(KEYS) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if tell.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    told
}
