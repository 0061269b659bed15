//! The models of a prognosis: one, or several of which the mean is taken.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::Table;
use crate::ModelError;
use crate::blend::PartConfig;
use crate::card::Fitted;
use crate::gradient_boosting::Trees;
use crate::kernel_ridge::KernelRidge;
use crate::linear::Linear;

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Trees(Trees),
    Kernel(KernelRidge),
    Linear(Linear),
}

/// At least one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts(Vec<Part>);

impl Parts {
    pub fn fit(of: &[PartConfig], x: &Table, y: &[f64]) -> Result<Self, ModelError> {
        let fit = |part: &PartConfig| {
            Ok(match part {
                PartConfig::GradientBoosting(c) => Part::Trees(Trees::fit(c, x, y)?),
                PartConfig::KernelRidge(c) => Part::Kernel(KernelRidge::fit(c, x, y)?),
                PartConfig::Linear(c) => Part::Linear(Linear::fit(c, x, y)?),
            })
        };
        Ok(Self(of.iter().map(fit).collect::<Result<_, ModelError>>()?))
    }

    fn mean(&self, of: impl Fn(&Part) -> f64) -> f64 {
        self.0.iter().map(of).sum::<f64>() / self.0.len() as f64
    }

    /// What contributions are counted from.
    pub fn base(&self) -> f64 {
        self.mean(|p| match p {
            Part::Trees(t) => t.base(),
            Part::Kernel(k) => k.base(),
            Part::Linear(l) => l.base(),
        })
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        self.mean(|p| match p {
            Part::Trees(t) => t.value(x),
            Part::Kernel(k) => k.value(x),
            Part::Linear(l) => l.value(x),
        })
    }

    /// Writes what each feature adds to the value, over [`Parts::base`]; `sources` names the feature of each input.
    pub fn explain(&self, x: &[f64], sources: &[usize], contributions: &mut [f64]) {
        contributions.fill(0.0);
        let share = 1.0 / self.0.len() as f64;
        for part in &self.0 {
            match part {
                Part::Trees(t) => t.explain(x, share, sources, contributions),
                Part::Kernel(k) => k.explain(x, share, sources, contributions),
                Part::Linear(l) => l.explain(x, share, sources, contributions),
            }
        }
    }

    /// For the card.
    pub fn facts(&self) -> Vec<Fitted> {
        let fact = |name: &str, value: Vec<f64>| Fitted { name: name.to_owned(), value };
        self.0
            .iter()
            .map(|part| match part {
                Part::Trees(t) => fact("trees, their nodes", vec![t.trees() as f64, t.nodes() as f64]),
                Part::Kernel(k) => fact("landmarks", vec![k.landmarks() as f64]),
                Part::Linear(l) => fact("weights of the standardised inputs", l.weights().to_vec()),
            })
            .collect()
    }

    pub fn write(&self, w: &mut Writer) {
        w.u32(self.0.len() as u32);
        for part in &self.0 {
            match part {
                Part::Trees(t) => {
                    w.u8(1);
                    t.write(w);
                }
                Part::Kernel(k) => {
                    w.u8(2);
                    k.write(w);
                }
                Part::Linear(l) => {
                    w.u8(3);
                    l.write(w);
                }
            }
        }
    }

    pub fn read(r: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let n = r.count(9)?;
        if n == 0 || n > 16 {
            return Err(r.invalid(format!("{n} models, there are 1 to 16")));
        }
        let mut out = Vec::with_capacity(n);
        for _ in 0..n {
            out.push(match r.u8()? {
                1 => Part::Trees(Trees::read(r, width)?),
                2 => Part::Kernel(KernelRidge::read(r, width)?),
                3 => Part::Linear(Linear::read(r, width)?),
                other => return Err(r.invalid(format!("model {other} is not known"))),
            });
        }
        Ok(Self(out))
    }
}
