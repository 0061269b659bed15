//! Who may look on, and at what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use avouch_connectors::http::{Live, LiveQuestion, LiveRefusal};
use tokio::sync::mpsc;

use super::rows::Shown;
use super::stream::Stream;
use super::{MOST_TAPS, PIECES, Running, Tap, Taps};
use crate::lang::{closest, condition_mistake, list};

fn refusal(status: u16, why: impl Into<String>) -> LiveRefusal {
    LiveRefusal { status, why: why.into() }
}

/// Finds the step and plans the condition.
fn shown(running: &Running, question: &LiveQuestion) -> Result<Shown, LiveRefusal> {
    let Running { pipeline, plan } = running;
    if !pipeline.http_tap {
        let why = "this pipeline shows no rows: `tap` is not on, because whoever reaches the address would see its readings; \
                   to allow that, write `tap = true` in `[http]` and reload it (SIGHUP)";
        return Err(refusal(403, why));
    }
    let step = &question.step;
    let Some(shown) = Shown::of(pipeline, plan, step) else {
        let models = pipeline.model_steps.iter().map(|s| s.name.value.as_str());
        let rows = plan.rows.iter().map(|s| s.name.as_str());
        let windows = plan.windows.iter().map(|s| s.name.as_str());
        let names: Vec<&str> =
            [plan.source.name.as_str()].into_iter().chain(rows).chain(windows).chain(models).collect();
        let help = match closest(step, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", list(&names)),
        };
        return Err(refusal(404, format!("there is no step `{}` in this pipeline; {help}", step.escape_debug())));
    };
    let table = shown.table.clone();
    shown.only(question.condition.as_deref()).map_err(|message| {
        let condition = question.condition.as_deref().unwrap_or_default();
        refusal(400, condition_mistake(condition, &message, &table))
    })
}

impl Live for Taps {
    fn open(&self, question: LiveQuestion) -> Result<mpsc::Receiver<Vec<u8>>, LiveRefusal> {
        let (queue, pieces) = mpsc::channel(PIECES);
        let (tap, shown) = self.change(|state| {
            let Some(running) = &state.running else {
                return Err(refusal(503, "the pipeline is still starting; try again in a moment"));
            };
            let shown = shown(running, &question)?;
            if state.taps.len() >= MOST_TAPS {
                let why =
                    format!("{MOST_TAPS} look on already, which is all that this process serves; end one of them");
                return Err(refusal(503, why));
            }
            state.opened += 1;
            let tap = Arc::new(Tap {
                id: state.opened,
                step: question.step.clone(),
                verdicts: shown.kind == super::rows::Kind::Verdicts,
                config: running.plan.config_hash,
                queue,
                waiting: AtomicUsize::new(0),
                seen: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            });
            state.taps.push(tap.clone());
            Ok((tap, shown))
        })?;
        tracing::info!(step = tap.step, "somebody looks on");
        let (send, lines) = mpsc::channel(1);
        let hub = self.clone();
        tokio::spawn(async move {
            let (id, step) = (tap.id, tap.step.clone());
            Stream::new(tap, shown, question.limit, send).run(pieces).await;
            hub.remove(id);
            tracing::info!(step, "nobody looks on any more");
        });
        Ok(lines)
    }
}
