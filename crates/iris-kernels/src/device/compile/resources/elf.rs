//! As much of ELF as code objects need: sections by their names, symbols by their numbers, notes by their types. 64 bits, little
//! endian.

/// The type of a section of symbols, and of one of notes.
const SYMBOLS: u32 = 2;
const NOTES: u32 = 7;

/// A file.
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
    /// Where the sections' names are.
    names: usize,
}

#[derive(Clone, Copy)]
struct Section {
    name: usize,
    kind: u32,
    offset: usize,
    size: usize,
    /// The section of a symbol table's names.
    link: usize,
}

impl<'a> Elf<'a> {
    /// Nothing where it is no such file.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = usize::try_from(u64_at(bytes, 40)?).ok()?;
        let count = usize::from(u16_at(bytes, 60)?);
        let names = usize::from(u16_at(bytes, 62)?);
        let sections = (0..count)
            .map(|at| {
                let header = bytes.get(table.checked_add(64 * at)?..)?;
                Some(Section {
                    name: u32_at(header, 0)? as usize,
                    kind: u32_at(header, 4)?,
                    offset: usize::try_from(u64_at(header, 24)?).ok()?,
                    size: usize::try_from(u64_at(header, 32)?).ok()?,
                    link: u32_at(header, 40)? as usize,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            bytes,
            names: sections.get(names)?.offset,
            sections,
        })
    }

    fn contents(&self, section: &Section) -> Option<&'a [u8]> {
        self.bytes.get(section.offset..)?.get(..section.size)
    }

    /// The contents of a section.
    pub(super) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.sections.iter().find(|section| {
            let at = self.names.checked_add(section.name);
            at.and_then(|at| text(self.bytes.get(at..)?)) == Some(name)
        })?;
        self.contents(found)
    }

    /// The name of a symbol.
    pub(super) fn symbol(&self, number: u32) -> Option<&'a str> {
        let table = self.sections.iter().find(|it| it.kind == SYMBOLS)?;
        let names = self.contents(self.sections.get(table.link)?)?;
        let symbol = self.contents(table)?.get(24 * number as usize..)?;
        text(names.get(u32_at(symbol, 0)? as usize..)?)
    }

    /// The contents of the first note of a type.
    pub(super) fn note(&self, kind: u32) -> Option<&'a [u8]> {
        for section in self.sections.iter().filter(|it| it.kind == NOTES) {
            let mut rest = self.contents(section)?;
            while !rest.is_empty() {
                let (name, len) = (u32_at(rest, 0)? as usize, u32_at(rest, 4)? as usize);
                let contents = rest.get(12 + name.next_multiple_of(4)..)?;
                if u32_at(rest, 8)? == kind {
                    return contents.get(..len);
                }
                rest = contents.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        None
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
