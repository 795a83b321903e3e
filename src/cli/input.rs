//! Tensors from safetensors files.
//!
//! Only the bytes of the tensor asked for are read, and they are read: a file that shrinks meanwhile is an error then, where
//! with a mapping it would be a signal.

use std::os::unix::fs::FileExt;

use half::{bf16, f16};
use iris::ops::{DType, Element};
use safetensors::Dtype;

use crate::cli::args::Source;
use crate::cli::error::Unusable;
use crate::cli::header::Safetensors;

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
    use std::path::PathBuf;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::cli::header::tests::file;

    fn read(file: &NamedTempFile, tensor: &str) -> Result<Loaded, Unusable> {
        Loaded::read(&Source {
            file: file.path().to_owned(),
            tensor: tensor.to_owned(),
        })
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
        let missing = Loaded::read(&source(directory.path().join("none"))).unwrap_err();
        let text = crate::cli::error::whole(&missing.into());
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
