//! Options of an algorithm as linfa's checked parameters: written once for all of ours.
//!
//! ```text
//!   KMeansConfig ── From ──► Params<KMeansConfig> ── ParamGuard::check ──► Valid<KMeansConfig> ── Fit::fit ──► the model
//! ```

use linfa::ParamGuard;

use crate::ModelError;

/// Options that know their own bounds.
pub trait Options {
    /// Refuses options that are out of bounds.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the option and what it may be.
    fn check(&self) -> Result<(), ModelError>;
}

/// Unchecked parameters, in linfa's manner: `KMeansParams::from(config).fit(&dataset)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params<C>(Valid<C>);

/// Parameters that passed [`ParamGuard::check`]; only these fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid<C>(C);

impl<C> From<C> for Params<C> {
    fn from(config: C) -> Self {
        Self(Valid(config))
    }
}

impl<C> Valid<C> {
    /// The options.
    pub fn config(&self) -> &C {
        &self.0
    }
}

impl<C: Options> ParamGuard for Params<C> {
    type Checked = Valid<C>;
    type Error = ModelError;

    fn check_ref(&self) -> Result<&Valid<C>, ModelError> {
        self.0.0.check()?;
        Ok(&self.0)
    }

    fn check(self) -> Result<Valid<C>, ModelError> {
        self.check_ref()?;
        Ok(self.0)
    }
}
