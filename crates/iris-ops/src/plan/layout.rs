//! Where everything of an operation's workspace lies.

use super::steps::{choice_of, in_packets, steps, tiled_as};
use super::{Blueprint, Kind, Step, Target};
use crate::config::{FusedConfig, Variant};
use crate::error::OpError;
use crate::tuning::Choice;
use iris_kernels::host::{Accumulators, Needs, Program, Staging};
use iris_kernels::{Element, Tile};
use iris_sync::{Layout, Word};

/// What parts of a workspace are aligned to: lines of every device's caches.
const ALIGN: usize = 256;

impl Blueprint {
    pub(crate) fn new<T: Element, W: Word>(
        kind: Kind,
        config: &FusedConfig,
        world: usize,
        target: &Target,
        choices: &[Choice],
    ) -> Result<Self, OpError> {
        let operation = kind.operation();
        let &FusedConfig { m, n, k, .. } = config;
        for (field, size) in [("m", m), ("n", n), ("k", k)] {
            if size == 0 {
                return Err(OpError::Empty { operation, field });
            }
        }
        if let Some(tile) = config.tile {
            for (field, size) in [("tile.m", tile.m), ("tile.n", tile.n)] {
                if size == 0 {
                    return Err(OpError::Empty { operation, field });
                }
            }
        }
        if kind != Kind::AllReduce && config.variant != Variant::Auto {
            return Err(OpError::NoSuchVariant {
                operation,
                variant: config.variant,
            });
        }
        if !(1..=W::MAX).contains(&config.first) {
            return Err(OpError::FirstValue {
                operation,
                first: config.first,
                max: W::MAX,
            });
        }
        let too_large = || OpError::TooLarge {
            operation,
            m,
            n,
            k,
            world,
        };
        // Every product of sizes below is one of these or smaller by a constant.
        m.checked_mul(n)
            .and_then(|_| m.checked_mul(k))
            .and_then(|_| k.checked_mul(n))
            .and_then(|_| m.max(n).max(k).checked_mul(64 * world))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        let element = size_of::<T>();
        let chosen = choices.iter().filter_map(|choice| choice.tile);
        for tile in config.tile.into_iter().chain(chosen) {
            if let (false, Some((step, most))) = (target.has(tile), target.tiles) {
                return Err(OpError::Tile {
                    operation,
                    tile,
                    step,
                    most,
                    also: target.also.to_vec(),
                });
            }
        }
        let tile_asked = |rows: usize| {
            let chosen =
                || choice_of(choices, rows, [n, world, element]).and_then(|choice| choice.tile);
            config.tile.or_else(chosen)
        };
        let tile_of = |program: Program, rows: usize| match (tile_asked(rows), target.tiles) {
            (Some(tile), Some(_)) => tile,
            (None, Some(_)) => match (program, target.unpacks) {
                (Program::AllGatherMatmulPackets, Some(tile)) => tile,
                _ => (target.tile)(
                    tiled_as(kind, in_packets(program)),
                    [m, rows],
                    n,
                    world,
                    element,
                ),
            },
            (given, None) => {
                let tile = given.unwrap_or_else(|| (target.tile)(kind, [m, m], n, world, element));
                // A tile no larger than the result: slots are not larger than what they hold.
                Tile {
                    m: tile.m.min(m),
                    n: tile.n.min(n),
                }
            }
        };
        let travelling = target.packets.filter(|_| config.packets);
        let unpacks = target.unpacks_unasked(kind, config, world).is_some();
        let packed = travelling.map(|traffic| (traffic, unpacks));
        let mut steps = steps(kind, config, choices, world, element, packed, tile_of);
        let needs_of = |step: &Step| (target.needs)(step.program, step.rows, step.shape, world);
        let needs = steps.iter().map(needs_of).fold(Needs::default(), Needs::or);

        // As many words as these for one source are terabytes, and all words together are still counted without overflow.
        const MOST_WORDS: usize = 1 << 40;
        if needs.words.max(needs.locks) > MOST_WORDS {
            return Err(too_large());
        }
        let layout = Layout::new(world, needs.words, needs.locks);
        let mut end = (target.words)(layout).next_multiple_of(ALIGN);
        let mut take = |bytes: Option<usize>| {
            let start = end;
            end = bytes
                .and_then(|bytes| end.checked_add(bytes))
                .and_then(|end| end.checked_next_multiple_of(ALIGN))?;
            Some(start)
        };
        // What a source has in a bank: for the most demanding step, and whole slots of every one.
        let mut source_bytes = 0usize;
        let mut whole = 1usize;
        for step in &mut steps {
            let needs = needs_of(step);
            let bytes = (target.slot)(step.program, needs, element);
            let bytes = bytes.ok_or_else(too_large)?;
            step.staging = Staging::new(0, if bytes == 0 { 0 } else { needs.slots }, bytes);
            let Staging {
                slots, slot_bytes, ..
            } = step.staging;
            if slots == 0 {
                continue;
            }
            source_bytes = source_bytes.max(slots.checked_mul(slot_bytes).ok_or_else(too_large)?);
            whole = lcm(whole, slot_bytes).ok_or_else(too_large)?;
        }
        let source_bytes = source_bytes
            .checked_next_multiple_of(whole)
            .ok_or_else(too_large)?;
        let all = source_bytes.checked_mul(2 * world);
        let staging = take(all).ok_or_else(too_large)?;
        for step in &mut steps {
            step.staging.offset = staging;
            if step.staging.slots > 0 {
                step.staging.slots = source_bytes / step.staging.slot_bytes;
            }
        }
        let packets = match packets(&mut steps, element, needs_of) {
            Some(0) => None,
            Some(bytes) => {
                let offset = take(bytes.checked_mul(2 * world)).ok_or_else(too_large)?;
                for step in &mut steps {
                    step.packets.offset = offset;
                }
                Some((offset, 2 * world * bytes))
            }
            None => return Err(too_large()),
        };
        let mut accumulators = Accumulators {
            offset: 0,
            elements: needs.accumulators,
        };
        accumulators.offset = take(accumulators.bytes()).ok_or_else(too_large)?;
        let fewest = [0].into_iter().chain(steps.iter().map(|step| step.rows));
        let partials = (steps.iter().zip(fewest))
            .map(|(step, before)| (target.partials)(step, before + 1, world))
            .max()
            .filter(|&bytes| bytes > 0)
            .map(|bytes| {
                let offset = take(Some(bytes)).ok_or_else(too_large)?;
                Ok::<_, OpError>((offset, bytes))
            })
            .transpose()?;
        let unfused = steps.iter().filter(|step| !step.fused);
        let product = match unfused.map(|step| product_rows(step, world)).max() {
            Some(rows) => Some(take((rows * n).checked_mul(element)).ok_or_else(too_large)?),
            None => None,
        };
        let stored = steps.iter().any(|step| step.program.stores_to_peers());
        let bounce = if config.plain_output && stored {
            Some(take((m * n).checked_mul(size_of::<T>())).ok_or_else(too_large)?)
        } else {
            None
        };
        Ok(Self {
            steps,
            layout,
            staging,
            packets,
            accumulators,
            partials,
            product,
            bounce,
            bytes: end,
        })
    }
}

/// The most rows of the product of a step that is not fused.
fn product_rows(step: &Step, world: usize) -> usize {
    match step.program {
        Program::MatmulAllGather => step.rows.div_ceil(world),
        _ => step.rows,
    }
}

/// Lays out the packets that a source has in a bank, and returns their bytes; `None` where no integer holds them.
fn packets(steps: &mut [Step], element: usize, needs_of: impl Fn(&Step) -> Needs) -> Option<usize> {
    // Whole slots of every step that has some, and whole rows of all.
    let (mut most, mut whole) = (0usize, 1usize);
    for step in steps.iter_mut() {
        let has = in_packets(step.program);
        let needs = needs_of(step);
        let row = step.shape.tile.n.checked_mul(2 * element)?;
        let slot_bytes = match has {
            true => needs.packet_elements.checked_mul(2 * element)?,
            false => row,
        };
        whole = lcm(whole, lcm(row, slot_bytes)?)?;
        if has {
            most = most.max(needs.packet_slots.checked_mul(slot_bytes)?);
        }
        step.packets = Staging::new(0, 0, slot_bytes);
    }
    if most == 0 {
        return Some(0);
    }
    let bytes = most.checked_next_multiple_of(whole)?;
    for step in steps {
        step.packets.slots = bytes / step.packets.slot_bytes;
    }
    Some(bytes)
}

/// The least common multiple, where it fits an integer.
pub(super) fn lcm(a: usize, b: usize) -> Option<usize> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b)
}
