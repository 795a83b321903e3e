//! Finding the rows that are for an operation.

use super::{Machine, Tuning, TuningRow};
use iris_kernels::DType;
use iris_kernels::host::GatherDim;
use std::f64::consts::LN_2;

/// An operation that rows are looked for.
#[derive(Debug, Clone)]
pub(super) struct Query<'a> {
    pub(super) machine: &'a Machine,
    pub(super) ranks: usize,
    pub(super) op: &'static str,
    pub(super) gather: Option<GatherDim>,
    pub(super) dtype: DType,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Whether rows with packets count.
    pub(super) packets: bool,
}

/// How far apart two sizes are, by their logarithms.
fn distance(a: usize, b: usize) -> f64 {
    (a as f64 / b as f64).ln().abs()
}

impl Query<'_> {
    fn is_for(&self, row: &TuningRow) -> bool {
        // A little more than the root of 2, for roots are not exact.
        let near = |a, b| distance(a, b) <= LN_2 / 2.0 + 1e-9;
        row.device == self.machine.device
            && row.ranks == self.ranks
            && row.op == self.op
            && row.gather == self.gather
            && row.dtype == self.dtype
            && (self.packets || !row.packets)
            && near(row.n, self.n)
            && near(row.k, self.k)
    }

    /// What the nearest is the least of: another compiler first of all, then how far away N and K are.
    fn far(&self, row: &TuningRow) -> (bool, f64) {
        let apart = distance(row.n, self.n).hypot(distance(row.k, self.k));
        (row.compiler != self.machine.compiler, apart)
    }
}

impl Tuning {
    /// The rows of the nearest N and K, by rising M, with their lines. Of several of one M the last counts: it was measured last.
    pub(super) fn nearest(&self, query: &Query<'_>) -> Vec<(usize, &TuningRow)> {
        let found = self.rows.iter().filter(|(_, row)| query.is_for(row));
        let Some((_, nearest)) = found.clone().min_by(|(_, a), (_, b)| {
            let (a, b) = (query.far(a), query.far(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        }) else {
            return Vec::new();
        };
        let same = |row: &TuningRow| {
            (row.n, row.k) == (nearest.n, nearest.k) && query.far(row).0 == query.far(nearest).0
        };
        let mut rows: Vec<_> = found
            .filter(|(_, row)| same(row))
            .map(|(line, row)| (*line, row))
            .collect();
        rows.sort_by_key(|(line, row)| (row.m, std::cmp::Reverse(*line)));
        rows.dedup_by_key(|(_, row)| row.m);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;
    use crate::config::Variant;

    fn machine() -> Machine {
        Machine {
            device: "host".to_owned(),
            compiler: "some".to_owned(),
        }
    }

    fn query(machine: &Machine, n: usize, k: usize) -> Query<'_> {
        Query {
            machine,
            ranks: 2,
            op: "matmul_all_reduce",
            gather: None,
            dtype: DType::F32,
            n,
            k,
            packets: true,
        }
    }

    #[test]
    fn the_nearest_size_within_the_root_of_two_counts() {
        let table = Tuning::new([row(1, 1000, 1000), row(2, 1200, 1000), row(3, 1000, 4000)]);
        let machine = machine();
        let found = |n, k| -> Vec<_> {
            let rows = table.nearest(&query(&machine, n, k));
            rows.iter().map(|(_, row)| row.m).collect()
        };
        assert_eq!(found(1000, 1000), [1]);
        assert_eq!(found(1150, 1000), [2]);
        assert_eq!(found(1690, 1000), [2]);
        assert_eq!(found(1700, 1000), [] as [usize; 0]);
        assert_eq!(found(708, 1400), [1]);
        assert_eq!(found(700, 1000), [] as [usize; 0]);
        assert_eq!(found(1000, 2829), [3]);
        assert_eq!(found(1000, 2000), [] as [usize; 0]);
    }

    #[test]
    fn rows_of_anything_else_do_not_count() {
        let machine = machine();
        let table = Tuning::new([row(1, 8, 8)]);
        assert_eq!(table.nearest(&query(&machine, 8, 8)).len(), 1);
        let found = |change: &dyn Fn(&mut Query<'_>)| {
            let mut query = query(&machine, 8, 8);
            change(&mut query);
            table.nearest(&query).len()
        };
        assert_eq!(found(&|query| query.ranks = 4), 0);
        assert_eq!(found(&|query| query.op = "matmul_reduce_scatter"), 0);
        assert_eq!(found(&|query| query.gather = Some(GatherDim::Rows)), 0);
        assert_eq!(found(&|query| query.dtype = DType::BF16), 0);
        let other = Machine {
            device: "another".to_owned(),
            ..machine.clone()
        };
        assert_eq!(table.nearest(&query(&other, 8, 8)).len(), 0);
        // Nor do packets where they are turned off.
        let packets = TuningRow {
            variant: Variant::OneShot,
            packets: true,
            ..row(1, 8, 8)
        };
        let table = Tuning::new([packets, row(4, 8, 8)]);
        let mut query = query(&machine, 8, 8);
        assert_eq!(table.nearest(&query).len(), 2);
        query.packets = false;
        assert_eq!(table.nearest(&query)[0].1.m, 4);
    }

    #[test]
    fn rows_of_another_compiler_count_where_there_are_none_of_the_same() {
        let machine = machine();
        let other = |m, n| TuningRow {
            compiler: "another".to_owned(),
            ..row(m, n, 8)
        };
        let ms = |table: &Tuning| -> Vec<_> {
            let rows = table.nearest(&query(&machine, 8, 8));
            rows.iter().map(|(_, row)| row.m).collect()
        };
        assert_eq!(ms(&Tuning::new([other(1, 8), other(2, 9)])), [1]);
        assert_eq!(ms(&Tuning::new([other(1, 8), row(2, 9, 8)])), [2]);
    }

    #[test]
    fn what_was_measured_last_counts() {
        let machine = machine();
        let again = TuningRow {
            us: 3.0,
            ..row(1, 8, 8)
        };
        let table = Tuning::new([row(4, 8, 8), row(1, 8, 8), again]);
        let rows = table.nearest(&query(&machine, 8, 8));
        let found: Vec<_> = rows.iter().map(|(_, row)| (row.m, row.us)).collect();
        assert_eq!(found, [(1, 3.0), (4, 12.5)]);
        assert_eq!(rows[0].0, 3);
    }
}
