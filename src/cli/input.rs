//! Tensors from safetensors files.
//!
//! A file is not trusted. Its header is held against the file's length before anything is allocated for it, and
//! every tensor against the header, so that what is read afterwards is never more than the file has. Only the bytes of the
//! tensor asked for are read: a file that shrinks meanwhile is an error of `read`, where a mapping would be a signal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use half::{bf16, f16};
use iris::ops::{DType, Element};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use crate::cli::args::Source;
use crate::cli::error::Unusable;

/// The longest header that is read; the largest known checkpoints' take some megabytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// The header's length, little-endian, at the start of the file.
const LENGTH_BYTES: u64 = 8;
/// The key that is no tensor.
const METADATA: &str = "__metadata__";
/// So many of a file's tensors are listed where the one asked for is not there.
const LISTED: usize = 20;

/// A tensor as it lies in its file.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Where it comes from, for messages.
    pub(crate) source: Source,
    /// Its sizes.
    pub(crate) shape: Vec<usize>,
    /// Its type.
    pub(crate) dtype: DType,
    bytes: Vec<u8>,
}

impl Loaded {
    /// Reads a tensor of a supported type.
    pub(crate) fn read(source: &Source) -> Result<Self, Unusable> {
        let file = Safetensors::open(source.file.clone())?;
        let Some(info) = file.tensors.get(&source.tensor) else {
            return Err(Unusable::NoTensor {
                file: file.path,
                tensor: source.tensor.clone(),
                there: list(file.tensors.keys()),
            });
        };
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Unusable::DType {
                    what: source.to_string(),
                    dtype: other.to_string(),
                });
            }
        };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        file.file
            .read_exact_at(&mut bytes, file.data_start + start as u64)
            .map_err(|source| Unusable::Unreadable {
                file: file.path,
                source,
            })?;
        Ok(Self {
            source: source.clone(),
            shape: info.shape.clone(),
            dtype,
            bytes,
        })
    }

    /// Its rows and columns, if it is a matrix and has any elements.
    pub(crate) fn matrix(&self) -> Result<[usize; 2], Unusable> {
        let &[rows, columns] = self.shape.as_slice() else {
            return Err(Unusable::Dimensions {
                what: self.source.to_string(),
                given: self.shape.len(),
                expected: 2,
            });
        };
        if rows == 0 || columns == 0 {
            return Err(Unusable::Empty {
                what: self.source.to_string(),
                rows,
                columns,
            });
        }
        Ok([rows, columns])
    }

    /// Its elements, exactly or, where the type is another, rounded to the nearest.
    pub(crate) fn convert<T: Element>(&self) -> Vec<T> {
        match self.dtype {
            DType::F32 => self.decode(|bytes| T::from_f32(f32::from_le_bytes(bytes))),
            DType::F16 => self.decode(|bytes| T::from_f32(f16::from_le_bytes(bytes).to_f32())),
            DType::BF16 => self.decode(|bytes| T::from_f32(bf16::from_le_bytes(bytes).to_f32())),
        }
    }

    fn decode<T, const SIZE: usize>(&self, element: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
        let (elements, _) = self.bytes.as_chunks::<SIZE>();
        elements.iter().copied().map(element).collect()
    }
}

/// A file whose header was read and holds together.
#[derive(Debug)]
struct Safetensors {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    fn open(path: PathBuf) -> Result<Self, Unusable> {
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

/// The first few names and how many more there are.
fn list<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    let shown: Vec<_> = names.take(LISTED).map(|name| format!("`{name}`")).collect();
    match count {
        0 => "none".to_owned(),
        _ if count > LISTED => format!("{} and {} more", shown.join(", "), count - LISTED),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;

    /// A file of a header and so many bytes of data.
    fn file(header: &str, data: usize) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&vec![1; data]).unwrap();
        file
    }

    fn read(file: &NamedTempFile, tensor: &str) -> Result<Loaded, Unusable> {
        Loaded::read(&Source {
            file: file.path().to_owned(),
            tensor: tensor.to_owned(),
        })
    }

    /// The error's text with the file's name taken out, which must be in it.
    fn refused(header: &str, data: usize) -> String {
        let file = file(header, data);
        let text = read(&file, "x").unwrap_err().to_string();
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
            let text = read(&file, "x").unwrap_err().to_string();
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
            read(&file, "x")
                .unwrap_err()
                .to_string()
                .contains("it has 7 bytes")
        );
        // As long as the file says, which is all holes, and longer than any header.
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&(LONGEST_HEADER + 1).to_le_bytes()).unwrap();
        file.as_file().set_len(LONGEST_HEADER + 100).unwrap();
        assert!(
            read(&file, "x")
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

    #[test]
    fn a_missing_tensor_lists_those_that_are_there() {
        let empty = file("{}", 0);
        assert!(
            read(&empty, "x")
                .unwrap_err()
                .to_string()
                .ends_with("has no tensor `x`; it has none")
        );
        let entries: Vec<String> = (0..23)
            .map(|at| {
                format!(
                    r#""t{at:02}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#,
                    at + 1
                )
            })
            .collect();
        let many = file(&format!("{{{}}}", entries.join(",")), 23);
        let text = read(&many, "x").unwrap_err().to_string();
        assert!(
            text.contains("`t00`, `t01`") && text.ends_with("`t19` and 3 more"),
            "{text}"
        );
        let text = read(&many, "t03").unwrap_err().to_string();
        assert!(
            text.contains(":t03 is of dtype U8; f32, f16 and bf16"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let source = |file: PathBuf| Source {
            file,
            tensor: "x".into(),
        };
        let text = Loaded::read(&source(directory.path().into()))
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("is not a regular file"), "{text}");
        let text = Loaded::read(&source(directory.path().join("none")))
            .unwrap_err()
            .to_string();
        assert!(text.contains("none: No such file"), "{text}");
        let text = Loaded::read(&source("/dev/zero".into()))
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("is not a regular file"), "{text}");
    }

    #[test]
    fn elements_are_read_and_converted() {
        let header = r#"{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},
            "h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[0,3],"data_offsets":[12,12]}}"#;
        let mut file = file(header, 0);
        for half in [1.5f32, -2.0] {
            file.write_all(&f16::from_f32(half).to_le_bytes()).unwrap();
        }
        for value in [3.0f32, 1.0 + 2f32.powi(-9)] {
            file.write_all(&value.to_le_bytes()).unwrap();
        }
        let x = read(&file, "x").unwrap();
        assert_eq!((x.dtype, x.matrix().unwrap()), (DType::F32, [2, 1]));
        assert_eq!(x.convert::<f32>(), [3.0, 1.0 + 2f32.powi(-9)]);
        assert_eq!(x.convert::<bf16>(), [3.0, 1.0].map(bf16::from_f32));
        let h = read(&file, "h").unwrap();
        assert_eq!(h.convert::<f32>(), [1.5, -2.0]);
        assert!(
            h.matrix()
                .unwrap_err()
                .to_string()
                .ends_with("has 1 dimensions, and must have 2")
        );
        let b = read(&file, "b").unwrap();
        assert!(b.convert::<f32>().is_empty());
        assert!(b.matrix().unwrap_err().to_string().contains("is 0 x 3"));
    }
}
