//! Labels: what a person says becomes a record of the log.

use super::{Lane, LaneError, Output};
use crate::event::LaneEvent;
use crate::label::Label;
use crate::verdict::{Evidence, NO_MODEL, SCORE_NOT_A_NUMBER, Severity, Verdict, VerdictRecord};

impl Lane {
    /// Takes what a person says: it gets the next index of the log and the device's next `seq`. An input like a tick: it is pushed
    /// to `out.events`, and must be recorded together with the record in `out.verdicts`. Whether it was taken before,
    /// and whether the verdict it is about is as it says, is for the caller to see to: the lane keeps no verdicts.
    ///
    /// # Errors
    /// [`LaneError::EventOutOfPlace`] when it belongs behind another record; [`LaneError::Label`] for one that cannot be.
    pub fn label(&mut self, after_offset: i64, label: Label, out: &mut Output) -> Result<(), LaneError> {
        if after_offset != self.last_offset {
            let why = "it belongs elsewhere in the input";
            return Err(LaneError::EventOutOfPlace { given: after_offset, at: self.last_offset, why });
        }
        if let Some(flaw) = label.flaw() {
            return Err(LaneError::Label(flaw.to_owned()));
        }
        if let Some(index) = label.verdict.filter(|i| *i >= self.next_index) {
            let size = self.next_index;
            return Err(LaneError::Label(format!("it is about verdict {index} of a log of {size}")));
        }
        let index = self.next_index;
        let (device_id, seq) = self.devices.take_seq_of(&label.device);
        let evidence = Evidence {
            device: label.device.clone(),
            step: label.step.as_str().into(),
            topic: self.plan.source.topic.as_str().into(),
            partition: self.partition,
            // Its place in the input.
            first_offset: after_offset,
            last_offset: after_offset,
            rows: 0,
            references: Vec::new(),
            score: f64::NAN,
            p_value: f64::NAN,
            interval: None,
            incident: None,
            label: Some(Box::new(label.clone())),
            features: Vec::new(),
        };
        let salt = self.secret.record_salts(&self.log_id, index, 1)[0].salt;
        out.verdicts.push(VerdictRecord {
            index,
            verdict: Verdict {
                device_id,
                seq,
                window_start: label.from,
                window_end: label.to,
                model_hash: NO_MODEL,
                config_hash: self.plan.config_hash,
                input_digest: label.id(),
                score_e6: SCORE_NOT_A_NUMBER,
                severity: Severity::Normal.code(),
                class: label.opinion.class(),
                evidence_hash: evidence.hash(),
                salt,
            },
            evidence,
        });
        self.next_index += 1;
        out.events.push(LaneEvent::Label { after_offset, label });
        Ok(())
    }
}
