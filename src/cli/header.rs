//! The header of a safetensors file.
//!
//! It is not trusted: it is held against the file's length before anything is allocated for it, and every tensor against
//! the bytes that follow, of which each must belong to one tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use safetensors::tensor::TensorInfo;

use crate::cli::error::Unusable;

/// The longest header that is read; the largest known checkpoints' take some megabytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// The header's length, little-endian, at the start of the file.
const LENGTH_BYTES: u64 = 8;
/// The key that is no tensor.
const METADATA: &str = "__metadata__";

/// A file whose header was read and holds together.
#[derive(Debug)]
pub(crate) struct Safetensors {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Where in the file the tensors' bytes begin.
    pub(crate) data_start: u64,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    /// Opens a file and reads its header.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Unusable> {
        let unreadable = |source| Unusable::Unreadable {
            file: path.clone(),
            source,
        };
        let malformed = |detail: String| Unusable::Malformed {
            file: path.clone(),
            detail,
        };
        // Opening a pipe would wait for its writer, so what it is is asked first.
        if !std::fs::metadata(&path).map_err(unreadable)?.is_file() {
            return Err(Unusable::NotAFile { file: path });
        }
        let mut file = File::open(&path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut header_length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut header_length)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => malformed(format!(
                    "it has {length} bytes, less than a header's length takes"
                )),
                _ => unreadable(error),
            })?;
        let header_length = u64::from_le_bytes(header_length);
        if header_length > length - LENGTH_BYTES {
            return Err(malformed(format!(
                "it promises a header of {header_length} bytes, and {} follow",
                length - LENGTH_BYTES
            )));
        }
        if header_length > LONGEST_HEADER {
            return Err(malformed(format!(
                "its header of {header_length} bytes is longer than the {LONGEST_HEADER} that are read"
            )));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|error| malformed(format!("its header is no JSON object: {error}")))?;
        let tensors = entries
            .into_iter()
            .filter(|(name, _)| name != METADATA)
            .map(|(name, value)| match serde_json::from_value(value) {
                Ok(info) => Ok((name, info)),
                Err(error) => Err(Unusable::MalformedTensor {
                    file: path.clone(),
                    tensor: name,
                    detail: format!("is described wrongly: {error}"),
                }),
            })
            .collect::<Result<BTreeMap<String, TensorInfo>, _>>()?;
        let data_start = LENGTH_BYTES + header_length;
        check(&tensors, length - data_start).map_err(|(tensor, detail)| match tensor {
            Some(tensor) => Unusable::MalformedTensor {
                file: path.clone(),
                tensor,
                detail,
            },
            None => malformed(detail),
        })?;
        Ok(Self {
            path,
            file,
            data_start,
            tensors,
        })
    }
}

/// Whether the tensors are what the header says of them, and together take all `data` bytes, each once.
fn check(
    tensors: &BTreeMap<String, TensorInfo>,
    data: u64,
) -> Result<(), (Option<String>, String)> {
    for (name, info) in tensors {
        let fault = |detail: String| Err((Some(name.clone()), detail));
        let (start, end) = info.data_offsets;
        if start > end {
            return fault(format!("ends at {end}, before it starts at {start}"));
        }
        if end as u64 > data {
            return fault(format!("ends at byte {end} of {data} that are there"));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
        match bits {
            None => {
                return fault(format!(
                    "has a shape of {:?}, more than can be addressed",
                    info.shape
                ));
            }
            Some(bits) if bits % 8 != 0 || bits / 8 != end - start => {
                return fault(format!(
                    "has {} bytes, and {} of shape {:?} take {}",
                    end - start,
                    info.dtype,
                    info.shape,
                    bits.div_ceil(8)
                ));
            }
            Some(_) => {}
        }
    }
    let mut by_start: Vec<_> = tensors.iter().collect();
    by_start.sort_by_key(|(_, info)| info.data_offsets);
    let (mut next, mut last) = (0, None::<&str>);
    for (name, info) in by_start {
        let (start, end) = info.data_offsets;
        if start < next {
            let other = last.unwrap_or("the start");
            return Err((
                Some(name.clone()),
                format!("overlaps tensor `{other}`: it starts at {start}, before {next}"),
            ));
        }
        if start > next {
            return Err((
                Some(name.clone()),
                format!("starts at {start}: no tensor has the bytes from {next} on"),
            ));
        }
        (next, last) = (end, Some(name.as_str()));
    }
    if next as u64 != data {
        return Err((
            None,
            format!("its tensors take {next} bytes, and {data} are there"),
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;

    /// A file of a header and so many bytes of data.
    pub(crate) fn file(header: &str, data: usize) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&vec![1; data]).unwrap();
        file
    }

    fn open(file: &NamedTempFile) -> Result<Safetensors, Unusable> {
        Safetensors::open(file.path().to_owned())
    }

    /// The error's text with the file's name taken out, which must be in it.
    fn refused(header: &str, data: usize) -> String {
        let file = file(header, data);
        let text = open(&file).unwrap_err().to_string();
        let name = file.path().display().to_string();
        assert!(text.contains(&name), "{text}");
        text.replace(&name, "F")
    }

    #[test]
    fn a_header_that_does_not_hold_together_is_refused() {
        for (header, data, expected) in [
            (
                "[1]",
                0,
                "F: is not a usable safetensors file: its header is no JSON object",
            ),
            ("{\"x\":", 0, "its header is no JSON object"),
            (
                r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                7,
                "tensor `x` ends at byte 8 of 7",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                9,
                "take 8 bytes, and 9 are there",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
                8,
                "tensor `x` ends at 0, before it starts",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
                8,
                "has 8 bytes, and F32 of shape [3] take 12",
            ),
            (
                r#"{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
                2,
                "tensor `x` has 2 bytes, and F4",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
                "no tensor has the bytes from 0 on",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,8]}}"#,
                8,
                "more than can be addressed",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
                8,
                "tensor `x` is described wrongly",
            ),
            (
                r#"{"x":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
                8,
                "tensor `x` is described wrongly: unknown",
            ),
            (r#"{"x":7}"#, 0, "tensor `x` is described wrongly"),
            (
                r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
                "tensor `y` overlaps tensor `x`: it starts at 4, before 8",
            ),
        ] {
            let text = refused(header, data);
            assert!(text.contains(expected), "{header}\n  {text}\n  {expected}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused_before_it_is_read() {
        for promised in [u64::MAX, 1 << 62, 3] {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(&promised.to_le_bytes()).unwrap();
            file.write_all(b"{}").unwrap();
            let text = open(&file).unwrap_err().to_string();
            assert!(
                text.contains(&format!(
                    "promises a header of {promised} bytes, and 2 follow"
                )),
                "{text}"
            );
        }
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(b"1234567").unwrap();
        assert!(
            open(&file)
                .unwrap_err()
                .to_string()
                .contains("it has 7 bytes")
        );
        // As long as the file says, which is all holes, and longer than any header.
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&(LONGEST_HEADER + 1).to_le_bytes()).unwrap();
        file.as_file().set_len(LONGEST_HEADER + 100).unwrap();
        assert!(
            open(&file)
                .unwrap_err()
                .to_string()
                .contains("longer than the 100000000")
        );
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let header = format!("{{\"x\":{}", "[".repeat(1 << 20));
        assert!(refused(&header, 0).contains("no JSON object"));
    }
}
