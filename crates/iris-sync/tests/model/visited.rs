//! States as bytes, and the set of those seen.

use crate::engine::{Kind, Pending, State};
use crate::machine::Cell;

/// A state as bytes: each number in one byte, or in three where it does not fit. Equal bytes mean equal states.
pub(crate) fn pack(state: &State, bytes: &mut Vec<u8>) {
    bytes.clear();
    let mut number = |n: u16| match u8::try_from(n) {
        Ok(small) if small < 255 => bytes.push(small),
        _ => {
            let [low, high] = n.to_le_bytes();
            bytes.extend([255, low, high]);
        }
    };
    state.at.iter().for_each(|&at| number(at));
    state.cells.iter().for_each(|&cell| number(cell));
    for pending in &state.pending {
        number(u16::try_from(pending.len()).expect("few pending stores"));
        for p in pending {
            number(p.cell.number());
            number(p.value);
            number(match p.kind {
                Kind::Plain => 0,
                Kind::Release => 1,
                Kind::Add => 2,
            });
        }
    }
}

/// The state that `pack` made `bytes` of, of a model with so many actors and cells.
pub(crate) fn unpack(bytes: &[u8], actors: usize, cells: usize, state: &mut State) {
    let mut rest = bytes.iter().copied();
    let mut number = || match rest.next().expect("a whole state") {
        255 => {
            let low = rest.next().expect("a whole state");
            u16::from_le_bytes([low, rest.next().expect("a whole state")])
        }
        small => u16::from(small),
    };
    state.at.clear();
    state.at.extend((0..actors).map(|_| number()));
    state.cells.clear();
    state.cells.extend((0..cells).map(|_| number()));
    state.pending.resize(actors, Vec::new());
    for pending in &mut state.pending {
        pending.clear();
        for _ in 0..number() {
            let cell = Cell::numbered(number());
            let value = number();
            let kind = match number() {
                0 => Kind::Plain,
                1 => Kind::Release,
                _ => Kind::Add,
            };
            pending.push(Pending { cell, value, kind });
        }
    }
}

/// The states seen so far, in the order they were found, which is also the queue; with an open-addressing index.
pub(crate) struct Visited {
    bytes: Vec<u8>,
    /// Where each state ends in `bytes`.
    ends: Vec<usize>,
    parents: Vec<u32>,
    /// Upper half: part of the hash. Lower half: the state's number + 1, or 0 where the slot is free.
    index: Vec<u64>,
}

impl Visited {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            parents: Vec::new(),
            index: vec![0; 1 << 12],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, number: usize) -> &[u8] {
        let begin = number
            .checked_sub(1)
            .map_or(0, |previous| self.ends[previous]);
        &self.bytes[begin..self.ends[number]]
    }

    pub(crate) fn parent(&self, number: usize) -> usize {
        self.parents[number] as usize
    }

    fn hash(bytes: &[u8]) -> u64 {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes.len() as u64;
        let mut chunks = bytes.chunks_exact(8);
        let mut mix = |word: u64| {
            hash = (hash.rotate_left(29) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash ^= hash >> 32;
        };
        for chunk in &mut chunks {
            mix(u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        mix(u64::from_le_bytes(last));
        hash
    }

    /// Adds a state unless it is known.
    pub(crate) fn insert(&mut self, state: &[u8], parent: usize) {
        if self.len() * 2 >= self.index.len() {
            self.grow();
        }
        let hash = Self::hash(state);
        let mask = self.index.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let entry = self.index[slot];
            if entry == 0 {
                break;
            }
            let known = (entry & 0xffff_ffff) as usize - 1;
            if entry >> 32 == hash >> 32 && self.get(known) == state {
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.bytes.extend_from_slice(state);
        self.ends.push(self.bytes.len());
        self.parents.push(parent as u32);
        self.index[slot] = hash >> 32 << 32 | self.ends.len() as u64;
    }

    fn grow(&mut self) {
        let size = self.index.len() * 4;
        let mut index = vec![0; size];
        for number in 0..self.len() {
            let hash = Self::hash(self.get(number));
            let mut slot = hash as usize & (size - 1);
            while index[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            index[slot] = hash >> 32 << 32 | (number as u64 + 1);
        }
        self.index = index;
    }
}
