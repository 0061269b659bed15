//! Inputs of models, row after row.

/// A matrix of finite numbers, row-major, with at least one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Number of rows.
    pub rows: usize,
    /// Values in a row.
    pub width: usize,
    /// The values.
    pub values: Vec<f64>,
}

impl Table {
    /// Of this width.
    pub fn new(width: usize, values: Vec<f64>) -> Self {
        Self { rows: values.len() / width.max(1), width, values }
    }

    /// One row.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// One column.
    pub fn column(&self, j: usize) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().skip(j).step_by(self.width.max(1)).copied()
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.width.max(1))
    }
}
