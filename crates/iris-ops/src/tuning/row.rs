//! A row of a table: one point, and the way that was fastest there.

use super::TuningError;
use crate::config::Variant;
use iris_kernels::host::GatherDim;
use iris_kernels::{DType, Tile};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// The operations by their names, and whether each has variants.
const OPERATIONS: [(&str, bool); 4] = [
    ("matmul_all_reduce", true),
    ("matmul_reduce_scatter", false),
    ("all_gather_matmul", false),
    ("matmul_all_gather", false),
];

/// What was found at one point. As text it is a line of JSON, as it stands in a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningRow {
    /// The device's name, as the runtime tells it, or `host`.
    pub device: String,
    /// The ranks.
    pub ranks: usize,
    /// The operation, such as `matmul_all_reduce`.
    pub op: &'static str,
    /// How A is split, for `all_gather_matmul` alone.
    pub gather: Option<GatherDim>,
    /// The type of the elements.
    pub dtype: DType,
    /// What the kernels were compiled by. Rows of another compiler count where there are none of the same.
    pub compiler: String,
    /// The rows of A and C: the row is for calls of up to so many.
    pub m: usize,
    /// Columns of the whole problem.
    pub n: usize,
    /// Depth of the whole problem.
    pub k: usize,
    /// `OneShot` or `TwoShot` for `matmul_all_reduce`, `Auto` for the others.
    pub variant: Variant,
    /// Whether the call goes in packets, where the operation has them.
    pub packets: bool,
    /// The tile; `None` for the one that would be chosen by the sizes.
    pub tile: Option<Tile>,
    /// Whether one kernel does all of it; else our product goes before it, as a kernel of its own. Not for `all_gather_matmul`, which
    /// is always fused.
    pub fused: bool,
    /// Whether tiles are streamed: dealt out by slabs of their depth, where they do not come out even. For `all_gather_matmul` alone, and
    /// where the device's kernels can do it with the tile and as many rows. `None`, which a table leaves out, has a model say.
    pub streamed: Option<bool>,
    /// Microseconds that a call took.
    pub us: f64,
}

/// A row as it stands in a file, in the order of its keys.
#[derive(Serialize)]
struct Line<'a> {
    device: &'a str,
    ranks: usize,
    op: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gather: Option<&'static str>,
    dtype: String,
    compiler: &'a str,
    m: usize,
    n: usize,
    k: usize,
    variant: String,
    packets: bool,
    tile: Option<String>,
    fused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    streamed: Option<bool>,
    us: f64,
}

const FIELDS: [&str; 15] = [
    "device", "ranks", "op", "gather", "dtype", "compiler", "m", "n", "k", "variant", "packets",
    "tile", "fused", "streamed", "us",
];

impl Serialize for TuningRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = Line {
            device: &self.device,
            ranks: self.ranks,
            op: self.op,
            gather: self.gather.map(gather_name),
            dtype: self.dtype.to_string(),
            compiler: &self.compiler,
            m: self.m,
            n: self.n,
            k: self.k,
            variant: self.variant.to_string(),
            packets: self.packets,
            tile: self.tile.map(|tile| format!("{}x{}", tile.m, tile.n)),
            fused: self.fused,
            streamed: self.streamed,
            us: self.us,
        };
        line.serialize(serializer)
    }
}

impl fmt::Display for TuningRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// What A is split by, in words.
fn gather_name(gather: GatherDim) -> &'static str {
    match gather {
        GatherDim::Rows => "rows",
        GatherDim::Columns => "columns",
    }
}

/// `64x256` as a tile.
fn tile(text: &str) -> Option<Tile> {
    let (m, n) = text.split_once('x')?;
    let side = |text: &str| text.parse().ok().filter(|&side: &usize| side > 0);
    Some(Tile {
        m: side(m)?,
        n: side(n)?,
    })
}

impl TuningRow {
    /// The row that a line is. `table` and `line` are for errors.
    pub(super) fn parse(table: &str, line: usize, text: &str) -> Result<Self, TuningError> {
        let object = serde_json::from_str(text).map_err(|error| TuningError::Line {
            table: table.to_owned(),
            line,
            reason: error.to_string(),
        })?;
        let fields = Fields {
            table,
            line,
            object,
        };
        if let Some(unknown) = fields
            .object
            .keys()
            .find(|key| !FIELDS.contains(&key.as_str()))
        {
            let known = format!("no field: there are {}", FIELDS.join(", "));
            return Err(fields.wrong(unknown, &known));
        }
        let op = fields.text("op")?;
        let names = OPERATIONS.map(|(name, _)| name).join(", ");
        let (op, has_variants) = OPERATIONS
            .into_iter()
            .find(|(name, _)| *name == op)
            .ok_or_else(|| fields.wrong("op", &format!("one of {names}")))?;
        let gathers = op == "all_gather_matmul";
        let gather = match (fields.object.get("gather").map(Value::as_str), gathers) {
            (None, false) => None,
            (Some(Some("rows")), true) => Some(GatherDim::Rows),
            (Some(Some("columns")), true) => Some(GatherDim::Columns),
            (_, true) => return Err(fields.wrong("gather", "`rows` or `columns`")),
            (_, false) => {
                return Err(fields.wrong("gather", "left out but for all_gather_matmul"));
            }
        };
        let variant: Option<Variant> = fields.parsed("variant")?;
        let variant = match (variant, has_variants) {
            (Some(variant @ (Variant::OneShot | Variant::TwoShot)), true) => variant,
            (Some(Variant::Auto), false) => Variant::Auto,
            (_, true) => return Err(fields.wrong("variant", "`one_shot` or `two_shot`")),
            (_, false) => return Err(fields.wrong("variant", &format!("`auto` for {op}"))),
        };
        let packets = match fields.object.get("packets") {
            Some(&Value::Bool(packets)) => packets,
            _ => return Err(fields.wrong("packets", "true or false")),
        };
        let tile = match fields.object.get("tile") {
            None | Some(Value::Null) => None,
            Some(text) => {
                let tile = text.as_str().and_then(tile);
                Some(tile.ok_or_else(|| fields.wrong("tile", "of the form `64x256`, or null"))?)
            }
        };
        let fused = match fields.object.get("fused") {
            Some(&Value::Bool(fused)) => fused,
            _ => return Err(fields.wrong("fused", "true or false")),
        };
        if !fused && gathers {
            return Err(fields.wrong("fused", "true for all_gather_matmul"));
        }
        let streamed = match fields.object.get("streamed") {
            None => None,
            Some(&Value::Bool(streamed)) => Some(streamed),
            _ => return Err(fields.wrong("streamed", "true or false")),
        };
        if streamed.is_some() && !gathers {
            return Err(fields.wrong("streamed", "left out but for all_gather_matmul"));
        }
        let us = fields.object.get("us").and_then(Value::as_f64);
        let us = us.filter(|&us| us > 0.0 && us.is_finite());
        Ok(Self {
            device: fields.text("device")?.to_owned(),
            ranks: fields.number("ranks")?,
            op,
            gather,
            dtype: fields
                .parsed("dtype")?
                .ok_or_else(|| fields.wrong("dtype", "one of f32, f16, bf16"))?,
            compiler: fields.text("compiler")?.to_owned(),
            m: fields.number("m")?,
            n: fields.number("n")?,
            k: fields.number("k")?,
            variant,
            packets,
            tile,
            fused,
            streamed,
            us: us.ok_or_else(|| fields.wrong("us", "a number above 0"))?,
        })
    }
}

/// The fields of a line.
struct Fields<'a> {
    table: &'a str,
    line: usize,
    object: Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, expected: &str) -> TuningError {
        let value = self.object.get(field).map(Value::to_string);
        TuningError::Field {
            table: self.table.to_owned(),
            line: self.line,
            field: field.to_owned(),
            value: value.unwrap_or_else(|| "missing".to_owned()),
            expected: expected.to_owned(),
        }
    }

    fn text(&self, field: &str) -> Result<&str, TuningError> {
        let text = self.object.get(field).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(field, "a text"))
    }

    /// A name of something; nothing where it is no such name.
    fn parsed<T: FromStr>(&self, field: &str) -> Result<Option<T>, TuningError> {
        Ok(self.text(field)?.parse().ok())
    }

    fn number(&self, field: &str) -> Result<usize, TuningError> {
        let number = self.object.get(field).and_then(Value::as_u64);
        number
            .and_then(|number| usize::try_from(number).ok())
            .filter(|&number| number > 0)
            .ok_or_else(|| self.wrong(field, "a whole number from 1 on"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tuning) fn row(m: usize, n: usize, k: usize) -> TuningRow {
        TuningRow {
            device: "host".to_owned(),
            ranks: 2,
            op: "matmul_all_reduce",
            gather: None,
            dtype: DType::F32,
            compiler: "some".to_owned(),
            m,
            n,
            k,
            variant: Variant::TwoShot,
            packets: false,
            tile: None,
            fused: true,
            streamed: None,
            us: 12.5,
        }
    }

    #[test]
    fn a_line_comes_back_the_same() {
        let rows = [
            row(1, 2, 3),
            TuningRow {
                variant: Variant::OneShot,
                packets: true,
                tile: Some(Tile { m: 64, n: 256 }),
                dtype: DType::BF16,
                ..row(1, 2, 3)
            },
            TuningRow {
                op: "all_gather_matmul",
                gather: Some(GatherDim::Columns),
                variant: Variant::Auto,
                streamed: Some(true),
                ..row(16, 8192, 28672)
            },
        ];
        for row in rows {
            assert_eq!(
                TuningRow::parse("t", 1, &row.to_string()),
                Ok(row.clone()),
                "{row}"
            );
        }
        let first = row(1, 2, 3).to_string();
        assert!(
            first.starts_with(r#"{"device":"host","ranks":2,"op":"matmul_all_reduce","dtype":"#),
            "{first}"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_and_what_it_must_be() {
        let line = row(8, 16, 32).to_string();
        for (from, to, field, value, expected) in [
            (r#""m":8"#, r#""m":0"#, "m", "0", "from 1 on"),
            (r#""n":16"#, r#""n":-16"#, "n", "-16", "from 1 on"),
            (r#""k":32"#, r#""k":"x""#, "k", "\"x\"", "from 1 on"),
            (r#""ranks":2,"#, "", "ranks", "missing", "from 1 on"),
            ("f32", "f64", "dtype", "\"f64\"", "bf16"),
            (
                "two_shot",
                "spinlock",
                "variant",
                "\"spinlock\"",
                "one_shot",
            ),
            ("two_shot", "auto", "variant", "\"auto\"", "two_shot"),
            ("matmul_all_reduce", "matmul", "op", "\"matmul\"", "one of"),
            (
                "matmul_all_reduce",
                "matmul_all_gather",
                "variant",
                "\"two_shot\"",
                "`auto` for matmul_all_gather",
            ),
            (
                r#""packets":false"#,
                r#""packets":1"#,
                "packets",
                "1",
                "true",
            ),
            (
                r#""tile":null"#,
                r#""tile":"64""#,
                "tile",
                "\"64\"",
                "64x256",
            ),
            (
                r#""tile":null"#,
                r#""tile":"0x4""#,
                "tile",
                "\"0x4\"",
                "64x256",
            ),
            (
                r#""fused":true"#,
                r#""fused":null"#,
                "fused",
                "null",
                "true or false",
            ),
            (
                r#""us""#,
                r#""streamed":1,"us""#,
                "streamed",
                "1",
                "true or false",
            ),
            (
                r#""us""#,
                r#""streamed":false,"us""#,
                "streamed",
                "false",
                "left out but for all_gather_matmul",
            ),
            (r#""us":12.5"#, r#""us":0"#, "us", "0", "above 0"),
            (
                r#""us":12.5"#,
                r#""ms":12.5"#,
                "ms",
                "12.5",
                "device, ranks",
            ),
            (
                r#""dtype""#,
                r#""gather":"rows","dtype""#,
                "gather",
                "\"rows\"",
                "left out",
            ),
        ] {
            assert!(line.contains(from), "{from}");
            let said = TuningRow::parse("tables/t.jsonl", 7, &line.replacen(from, to, 1));
            match said {
                Err(TuningError::Field {
                    table,
                    line: 7,
                    field: found,
                    value: given,
                    expected: must,
                }) => {
                    assert_eq!(
                        (table.as_str(), found.as_str(), given.as_str()),
                        ("tables/t.jsonl", field, value)
                    );
                    assert!(must.contains(expected), "{field}: {must}");
                }
                other => panic!("{to}: {other:?}"),
            }
        }
        assert!(matches!(
            TuningRow::parse("t", 3, "[1, 2]"),
            Err(TuningError::Line { line: 3, .. })
        ));
    }
}
