//! AMD's metadata: MessagePack, a map whose `amdhsa.kernels` is a list of maps.

use super::Resources;

/// Maps and lists within each other; the metadata has four.
const DEPTH: usize = 16;

/// A value, as far as it matters here.
enum Value<'a> {
    Number(u64),
    Text(&'a str),
    List(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    Other,
}

/// The kernels that the metadata tells of.
pub(super) fn kernels(metadata: &[u8]) -> Option<Vec<Resources>> {
    let metadata = Reader(metadata).value(DEPTH)?;
    let Value::List(kernels) = metadata.get("amdhsa.kernels")? else {
        return None;
    };
    let resources = |kernel: &Value<'_>| {
        let number = |key| match kernel.get(key)? {
            Value::Number(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let Value::Text(name) = kernel.get(".name")? else {
            return None;
        };
        Some(Resources {
            kernel: (*name).to_owned(),
            // It counts accumulating registers too, where they are of the same file.
            registers: number(".vgpr_count")?,
            scratch: number(".private_segment_fixed_size")?,
        })
    };
    kernels.iter().map(resources).collect()
}

impl<'a> Value<'a> {
    fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Map(entries) = self else {
            return None;
        };
        entries
            .iter()
            .find(|(known, _)| matches!(known, Value::Text(text) if *text == key))
            .map(|(_, value)| value)
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes, the highest first.
    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }

    fn len(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        let depth = depth.checked_sub(1)?;
        let kind = *self.take(1)?.first()?;
        Some(match kind {
            0x00..=0x7f => Value::Number(kind.into()),
            0x80..=0x8f => self.map((kind & 15).into(), depth)?,
            0x90..=0x9f => self.list((kind & 15).into(), depth)?,
            0xa0..=0xbf => self.text((kind & 31).into())?,
            // Nothing, false, true, negative numbers.
            0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Value::Other,
            // Binary data, then numbers with a fraction.
            0xc4..=0xc6 => {
                let len = self.len(1 << (kind - 0xc4))?;
                self.other(len)?
            }
            0xca => self.other(4)?,
            0xcb => self.other(8)?,
            0xcc..=0xcf => Value::Number(self.number(1 << (kind - 0xcc))?),
            // Numbers with a sign.
            0xd0..=0xd3 => self.other(1 << (kind - 0xd0))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (kind - 0xd9))?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.len(2 << (kind - 0xdc))?;
                self.list(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.len(2 << (kind - 0xde))?;
                self.map(len, depth)?
            }
            // Extensions, of which there are none.
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return None,
        })
    }

    fn other(&mut self, len: usize) -> Option<Value<'a>> {
        self.take(len).map(|_| Value::Other)
    }

    fn text(&mut self, len: usize) -> Option<Value<'a>> {
        Some(Value::Text(std::str::from_utf8(self.take(len)?).ok()?))
    }

    fn list(&mut self, len: usize, depth: usize) -> Option<Value<'a>> {
        (0..len)
            .map(|_| self.value(depth))
            .collect::<Option<_>>()
            .map(Value::List)
    }

    fn map(&mut self, len: usize, depth: usize) -> Option<Value<'a>> {
        (0..len)
            .map(|_| Some((self.value(depth)?, self.value(depth)?)))
            .collect::<Option<_>>()
            .map(Value::Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_passed_over() {
        let mut text = vec![0x82];
        for part in [
            &b"\xa1x"[..],
            b"\x9c\xc0\xc3\xff\xc4\x01\x00\xcb\0\0\0\0\0\0\0\0\xd1\0\0\xcd\x01\x00\x90\x80\xd9\x01y\xdc\x00\x01\x05\xde\x00\x01\x01\x02",
            b"\xaeamdhsa.kernels\x91\x83",
            b"\xa5.name\xa1k",
            b"\xab.vgpr_count\xcc\x80",
            b"\xbb.private_segment_fixed_size\xce\x00\x01\x00\x02",
        ] {
            text.extend(part);
        }
        let expected = Resources {
            kernel: "k".to_owned(),
            registers: 128,
            scratch: 0x10002,
        };
        assert_eq!(kernels(&text), Some(vec![expected]));
        for len in 0..text.len() {
            assert_eq!(kernels(&text[..len]), None, "{len}");
        }
        assert_eq!(kernels(&[0x91; 1000]), None);
    }
}
