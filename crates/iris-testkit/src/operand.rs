//! Matrices as they lie in memory, for the reference.

use thiserror::Error;

use crate::number::Number;

/// Why a reference could not be made or used.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceError {
    /// A matrix reaches past the values given for it.
    #[error(
        "{rows} x {columns} with strides {row_stride} and {column_stride} needs {needed} values, {given} are given"
    )]
    TooShort {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Values from a row to the next.
        row_stride: usize,
        /// Values from a column to the next.
        column_stride: usize,
        /// How many values that takes.
        needed: usize,
        /// How many there are.
        given: usize,
    },
    /// The factors do not fit together.
    #[error("A has {a} columns, B has {b} rows")]
    Inner {
        /// Columns of A.
        a: usize,
        /// Rows of B.
        b: usize,
    },
    /// The bias is not as long as a row of the product.
    #[error("the bias has {given} values, the product {expected} columns")]
    Bias {
        /// Its length.
        given: usize,
        /// The product's columns.
        expected: usize,
    },
    /// A result of another size than the reference's.
    #[error("the result has {given} values, the reference {expected}")]
    Result {
        /// Length of the result.
        given: usize,
        /// Length of the reference.
        expected: usize,
    },
    /// A size that cannot be addressed.
    #[error("{rows} x {columns} is more than can be addressed")]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
}

/// A matrix as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Number> Operand<'a, T> {
    /// A matrix whose rows follow one another.
    pub fn row_major(values: &'a [T], rows: usize, columns: usize) -> Result<Self, ReferenceError> {
        Self::strided(values, rows, columns, columns, 1)
    }

    /// A matrix whose element (i, j) is `values[i * row_stride + j * column_stride]`.
    pub fn strided(
        values: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Result<Self, ReferenceError> {
        if rows > 0 && columns > 0 {
            let needed = (rows - 1)
                .checked_mul(row_stride)
                .zip((columns - 1).checked_mul(column_stride))
                .and_then(|(down, across)| down.checked_add(across)?.checked_add(1))
                .ok_or(ReferenceError::TooLarge { rows, columns })?;
            if needed > values.len() {
                return Err(ReferenceError::TooShort {
                    rows,
                    columns,
                    row_stride,
                    column_stride,
                    needed,
                    given: values.len(),
                });
            }
        }
        Ok(Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride,
        })
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The matrix in f64, row-major.
    pub(crate) fn to_f64(self) -> Vec<f64> {
        let mut dense = Vec::with_capacity(self.rows * self.columns);
        for row in 0..self.rows {
            let start = row * self.row_stride;
            dense.extend(
                (0..self.columns)
                    .map(|column| self.values[start + column * self.column_stride].to_f64()),
            );
        }
        dense
    }
}
