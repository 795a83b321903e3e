//! What kernels take of a device, read out of their code.

mod elf;
mod metadata;

use elf::Elf;

use super::Vendor;

/// What a kernel takes of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// The kernel's name.
    pub kernel: String,
    /// Registers of each thread: on AMD vector registers, accumulating ones included.
    pub registers: u32,
    /// Bytes of memory of each thread: its stack, and registers for which there is no room. 0 where nothing is spilled.
    pub scratch: u32,
}

/// The kernels in a code object, by their names; nothing where it is not of a form that is known here.
pub(super) fn resources(vendor: Vendor, code: &[u8]) -> Option<Vec<Resources>> {
    let elf = Elf::new(code)?;
    let mut kernels = match vendor {
        Vendor::Nvidia => nvidia(&elf)?,
        Vendor::Amd => metadata::kernels(elf.note(METADATA)?)?,
    };
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    Some(kernels)
}

/// The type of the note that holds AMD's metadata.
const METADATA: u32 = 32;
/// What an entry of `.nv.info` tells: registers, and the least stack with what is called.
const REGISTERS: u8 = 0x2f;
const STACK: u8 = 0x12;

/// From the entries of `.nv.info`: a form, what they tell, a size; where the form is 4, as many bytes, of which the first four are a
/// symbol and the next four the value.
fn nvidia(elf: &Elf<'_>) -> Option<Vec<Resources>> {
    let mut rest = elf.section(".nv.info")?;
    let mut told: Vec<(u8, u32, u32)> = Vec::new();
    while let Some((&[form, what, low, high], after)) = rest.split_first_chunk::<4>() {
        rest = after;
        if form != 4 {
            continue;
        }
        let (payload, after) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
        rest = after;
        if let (REGISTERS | STACK, &[a, b, c, d, e, f, g, h]) = (what, payload) {
            let symbol = u32::from_le_bytes([a, b, c, d]);
            told.push((what, symbol, u32::from_le_bytes([e, f, g, h])));
        }
    }
    // Functions that are called have a stack, and registers of their own in no case.
    let kernels = told.iter().filter(|(what, ..)| *what == REGISTERS);
    kernels
        .map(|&(_, symbol, registers)| {
            let stack = told
                .iter()
                .find(|&&(what, of, _)| what == STACK && of == symbol);
            Some(Resources {
                kernel: elf.symbol(symbol)?.to_owned(),
                registers,
                scratch: stack?.2,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the bytes are, nothing is read that is not there.
    #[test]
    fn what_is_no_code_object_has_no_kernels() {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0xff);
        for len in 0..bytes.len() {
            for vendor in [Vendor::Nvidia, Vendor::Amd] {
                assert_eq!(resources(vendor, &bytes[..len]), None);
            }
        }
        bytes[40..48].copy_from_slice(&0u64.to_le_bytes());
        assert_eq!(resources(Vendor::Nvidia, &bytes), None);
    }
}
