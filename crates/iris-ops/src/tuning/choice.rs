//! What rank 0's tables say of an operation, for all ranks.

use super::lookup::Query;
use super::{Tuning, TuningError, TuningRow};
use crate::backend::{Executor, Runs};
use crate::config::{FusedConfig, Variant};
use crate::error::{OpError, which_tiles};
use crate::plan::{Kind, Target, packets_of};
use iris_heap::{World, WorldError};
use iris_kernels::host::MOST_UNPACKED;
use iris_kernels::{Element, Tile};
use iris_sync::Word;

/// How calls of up to so many rows are carried out, as a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) rows: usize,
    pub(crate) variant: Variant,
    pub(crate) packets: bool,
    pub(crate) tile: Option<Tile>,
    pub(crate) fused: bool,
    pub(crate) streamed: Option<bool>,
}

/// What tables are asked by.
pub(crate) struct Asked<'a> {
    pub(crate) kind: Kind,
    pub(crate) config: &'a FusedConfig,
    pub(crate) target: &'a Target,
}

impl Asked<'_> {
    /// Whether there is anything to ask.
    fn asks(&self) -> bool {
        let FusedConfig {
            tuned,
            variant,
            tile,
            ..
        } = self.config;
        *tuned && *variant == Variant::Auto && tile.is_none()
    }

    /// What this rank's tables say.
    fn look_up(&self, query: &Query<'_>) -> Result<Vec<Choice>, TuningError> {
        let named;
        let users = match &self.config.tuning {
            Some(given) => Some(&**given),
            None => {
                named = Tuning::of_environment()?;
                named.as_ref()
            }
        };
        for table in users.into_iter().chain([Tuning::shipped()]) {
            let choices = self.of(table, query)?;
            if !choices.is_empty() {
                return Ok(choices);
            }
        }
        Ok(Vec::new())
    }

    /// What a table says, up to the most rows of the operation.
    fn of(&self, table: &Tuning, query: &Query<'_>) -> Result<Vec<Choice>, TuningError> {
        let found = table.nearest(query);
        let largest = found.last().map_or(0, |(_, row)| row.m);
        let fewest = found.first().map_or(0, |(_, row)| row.m);
        let mut choices: Vec<Choice> = Vec::new();
        for (line, row) in found {
            self.check(table, line, row)?;
            let times = if row.m == largest { reach(row) } else { 1 };
            choices.push(Choice {
                rows: row.m.saturating_mul(times),
                variant: row.variant,
                packets: row.packets,
                tile: row.tile,
                fused: row.fused,
                streamed: row.streamed,
            });
            if row.m >= self.config.m {
                break;
            }
        }
        let unasked = self
            .target
            .unpacks_unasked(self.kind, self.config, query.ranks);
        add_few(&mut choices, fewest, unasked);
        Ok(choices)
    }

    /// Whether the backend can do what a row says.
    fn check(&self, table: &Tuning, line: usize, row: &TuningRow) -> Result<(), TuningError> {
        let wrong = |field: &str, value: String, expected: String| TuningError::Field {
            table: table.name.clone(),
            line,
            field: field.to_owned(),
            value,
            expected,
        };
        if let (Some(tile), Some((step, most))) = (row.tile, self.target.tiles)
            && !self.target.has(tile)
        {
            return Err(wrong(
                "tile",
                format!("{}x{}", tile.m, tile.n),
                format!(
                    "a tile that {} has, {}",
                    row.device,
                    which_tiles(&step, &most, self.target.also)
                ),
            ));
        }
        let gather = self.config.gather;
        if row.packets && (self.target.packets.is_none() || packets_of(self.kind, gather).is_none())
        {
            let expected = format!("false: {} on {} has none", row.op, row.device);
            return Err(wrong("packets", "true".to_owned(), expected));
        }
        Ok(())
    }
}

/// Rows of A go in packets, by tiles of `tile`, also where a table, of `fewest` rows at least, only speaks of more than do.
fn add_few(choices: &mut Vec<Choice>, fewest: usize, tile: Option<Tile>) {
    if let (true, Some(_)) = (fewest > MOST_UNPACKED, tile) {
        let few = Choice {
            rows: MOST_UNPACKED,
            variant: Variant::Auto,
            packets: true,
            tile,
            fused: true,
            streamed: None,
        };
        choices.insert(0, few);
    }
}

/// What rank 0's tables say; nothing where they say nothing, or are not asked. Collective.
///
/// # Errors
/// Where rank 0's table cannot be used, on all ranks.
pub(crate) fn choices<T: Element, W: Word, B: Runs<T, W>>(
    world: &World<B>,
    asked: &Asked<'_>,
) -> Result<Vec<Choice>, OpError> {
    // Exchanged in any case: whether there is anything to ask may differ between ranks, which is found later.
    let operation = asked.kind.operation();
    let own = match world.rank() == 0 && asked.asks() {
        true => asked.look_up(&Query {
            machine: &B::Kernel::machine(world),
            ranks: world.size(),
            op: operation,
            gather: (asked.kind == Kind::AllGatherMatmul).then_some(asked.config.gather),
            dtype: T::DTYPE,
            n: asked.config.n,
            k: asked.config.k,
            packets: asked.config.packets,
        }),
        false => Ok(Vec::new()),
    };
    let said = match &own {
        Ok(choices) => encode(choices),
        Err(error) => format!("{FAILED}{error}"),
    };
    let gathered = world.all_gather_bytes(said.as_bytes())?;
    own?;
    let of_first = String::from_utf8_lossy(gathered.first().map_or(&[][..], Vec::as_slice));
    if let Some(error) = of_first.strip_prefix(FAILED) {
        return Err(OpError::World(WorldError::RankFailed {
            rank: 0,
            during: operation.to_owned(),
            error: error.to_owned(),
        }));
    }
    decode(&of_first).ok_or_else(|| {
        OpError::World(WorldError::Protocol {
            detail: format!("rank 0's choices for {operation} are malformed: {of_first}"),
        })
    })
}

/// What stands before an error in place of choices.
const FAILED: char = '!';
/// And what, in place of a word that the table leaves out.
const UNSAID: &str = "-";

/// A choice a line: rows, variant, packets, whether it is fused and streamed, and the tile, if there is one.
fn encode(choices: &[Choice]) -> String {
    let line = |choice: &Choice| {
        let tile = choice
            .tile
            .map(|Tile { m, n }| format!(" {m} {n}"))
            .unwrap_or_default();
        let streamed = match choice.streamed {
            Some(streamed) => streamed.to_string(),
            None => UNSAID.to_owned(),
        };
        let Choice {
            rows,
            variant,
            packets,
            fused,
            ..
        } = choice;
        format!("{rows} {variant} {packets} {fused} {streamed}{tile}\n")
    };
    choices.iter().map(line).collect()
}

fn decode(text: &str) -> Option<Vec<Choice>> {
    let choice = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let [rows, variant, packets, fused, streamed, tile @ ..] = &words[..] else {
            return None;
        };
        Some(Choice {
            rows: rows.parse().ok()?,
            variant: variant.parse().ok()?,
            packets: packets.parse().ok()?,
            fused: fused.parse().ok()?,
            streamed: match *streamed {
                UNSAID => None,
                streamed => Some(streamed.parse().ok()?),
            },
            tile: match tile {
                [] => None,
                [m, n] => Some(Tile {
                    m: m.parse().ok()?,
                    n: n.parse().ok()?,
                }),
                _ => return None,
            },
        })
    };
    text.lines().map(choice).collect()
}

/// Up to how many times its M the row with the largest M is for: no more where all is sent to all, or in packets, since with rows either costs more and
/// more beside another way; and tiles that are right for few rows are wrong for very many.
fn reach(row: &TuningRow) -> usize {
    if row.variant == Variant::OneShot || row.packets {
        1
    } else {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn rows_hold_for_some_more_but_not_where_traffic_grows_faster() {
        let way = |variant, packets| TuningRow {
            variant,
            packets,
            ..row(64, 8, 8)
        };
        for (variant, packets, times) in [
            (Variant::TwoShot, false, 4),
            (Variant::Auto, false, 4),
            (Variant::TwoShot, true, 1),
            (Variant::Auto, true, 1),
            (Variant::OneShot, false, 1),
        ] {
            assert_eq!(reach(&way(variant, packets)), times, "{variant} {packets}");
        }
    }

    #[test]
    fn a_table_of_more_rows_says_nothing_of_few() {
        let of = |rows| Choice {
            rows,
            variant: Variant::Auto,
            packets: false,
            tile: None,
            fused: true,
            streamed: None,
        };
        let tile = Some(Tile { m: 64, n: 64 });
        let choices = [of(128), of(usize::MAX)];
        let added = |fewest, tile| {
            let mut choices = choices.to_vec();
            add_few(&mut choices, fewest, tile);
            choices
        };
        let all = added(MOST_UNPACKED + 1, tile);
        assert_eq!(all[1..], choices);
        let few = &all[0];
        assert_eq!(
            (few.rows, few.packets, few.tile),
            (MOST_UNPACKED, true, tile)
        );
        assert_eq!(added(MOST_UNPACKED + 1, None), choices);
        // What it says of few rows counts; and where it says nothing at all, models do.
        assert_eq!(added(MOST_UNPACKED, tile), choices);
        assert_eq!(added(0, tile), choices);
    }

    #[test]
    fn choices_come_over_as_they_are() {
        let choices = [
            Choice {
                rows: 16,
                variant: Variant::OneShot,
                packets: true,
                tile: Some(Tile { m: 64, n: 256 }),
                fused: true,
                streamed: Some(false),
            },
            Choice {
                rows: usize::MAX,
                variant: Variant::Auto,
                packets: false,
                tile: None,
                fused: false,
                streamed: None,
            },
        ];
        assert_eq!(decode(&encode(&choices)).unwrap(), choices);
        assert_eq!(decode("").unwrap(), []);
        for bad in [
            "16",
            "16 auto",
            "x auto false",
            "16 auto false",
            "16 auto false true",
            "16 auto false true false 64",
            "16 none false true false",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
