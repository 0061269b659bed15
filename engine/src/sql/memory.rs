//! Row functions that remember: `lag`, `delta` and `ewma`, each over the rows of one device.
//!
//! A lane has all rows of a device in the order of their offsets, so the device is the partition and the offset the order:
//! `lag(x)` is what SQL spells `lag(x) OVER (PARTITION BY device ORDER BY offset)`. Event time does not reorder rows.
//!
//! - `lag(x [, n])`: `x` of the device's `n`-th row before, NULL included; NULL if there were fewer. `n` is 1 to 1000.
//! - `delta(x)`: `x` minus the last `x` that was not NULL; NULL for the first, and where `x` is NULL.
//! - `ewma(x, alpha)`: the first `x`, then `e + alpha (x - e)`. `ewma(x, 'half-life')`, as in `'30s'`: the weight of what was
//!   halves in that much event time; a row not later than the last one has no weight. A NULL changes nothing and gives
//!   the average as it stands.
//!
//! Which rows count: those that reach the SELECT list the call stands in, thus after its WHERE. A row that fails in its
//! step leaves no trace in that step's memory. A call takes every row, also where a CASE around it does not use the value.
//!
//! Calls become hidden columns, computed one call after the other before the projection they stand in.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;

use crate::codec::{CodecError, Reader, Writer};
use crate::device::DeviceTable;

/// The functions' names.
pub(super) const NAMES: [&str; 3] = ["delta", "ewma", "lag"];
const MOST_ROWS: i64 = 1_000;

/// The functions as the planner sees them: names and types. They never run as scalar functions.
pub(super) fn placeholders() -> impl Iterator<Item = ScalarUDF> {
    NAMES.into_iter().map(|name| {
        ScalarUDF::new_from_impl(Placeholder { name, signature: Signature::user_defined(Volatility::Volatile) })
    })
}

/// The function a call names, if it is one of these.
pub(super) fn is_call(e: &Expr) -> Option<&ScalarFunction> {
    match e {
        Expr::ScalarFunction(f) if f.func.inner().is::<Placeholder>() => Some(f),
        _ => None,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Placeholder {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Placeholder {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
        let time = |t: &DataType| matches!(t, DataType::Timestamp(..));
        Ok(match (self.name, args) {
            ("lag", [x]) => vec![remembered(x)?],
            ("lag", [x, n]) if n.is_integer() => vec![remembered(x)?, n.clone()],
            ("delta", [x]) if number(x) => vec![DataType::Float64],
            ("delta", [x]) if time(x) => vec![DataType::Timestamp(TimeUnit::Millisecond, None)],
            ("ewma", [x, how]) if number(x) && (number(how) || how.is_string()) => vec![DataType::Float64, how.clone()],
            ("lag", _) => return plan_err!("write lag(x) or lag(x, 2)"),
            ("delta", _) => return plan_err!("write delta(x), with x a number or a time"),
            _ => return plan_err!("write ewma(x, 0.1), or ewma(x, '30s') for a half-life"),
        })
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [x, ..] if self.name == "lag" => Ok(x.clone()),
            _ => Ok(DataType::Float64),
        }
    }
    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{} was not planned as a row function", self.name)
    }
}

/// The type in which a value is remembered.
fn remembered(t: &DataType) -> Result<DataType> {
    Ok(match t {
        DataType::Float64 | DataType::Int64 | DataType::Boolean | DataType::Utf8 => t.clone(),
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Millisecond, None),
        t if t.is_integer() && *t != DataType::UInt64 => DataType::Int64,
        t if t.is_numeric() || *t == DataType::Null => DataType::Float64,
        t if t.is_string() => DataType::Utf8,
        other => return plan_err!("lag does not remember values of type {other}"),
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Lag(usize),
    Delta,
    Alpha(f64),
    /// Milliseconds.
    HalfLife(f64),
}

/// One call in a query, compiled.
#[derive(Debug, Clone)]
pub(super) struct Call {
    function: Function,
    pub(super) value: Arc<dyn PhysicalExpr>,
    ty: DataType,
}

impl Call {
    /// Compiles a call whose first argument is compiled to `value`, of type `ty` after coercion.
    pub fn new(call: &ScalarFunction, value: Arc<dyn PhysicalExpr>, ty: DataType) -> Result<Self> {
        let name = call.func.name();
        let function = match (name, call.args.get(1).map(literal)) {
            ("lag", None) => Function::Lag(1),
            ("lag", Some(Some(n))) => match n.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(Some(n))) if (1..=MOST_ROWS).contains(&n) => Function::Lag(n as usize),
                _ => return plan_err!("lag goes back 1 to {MOST_ROWS} rows; write lag(x, 2)"),
            },
            ("delta", None) => Function::Delta,
            ("ewma", Some(Some(ScalarValue::Utf8(Some(t)) | ScalarValue::LargeUtf8(Some(t))))) => match duration(&t) {
                Some(ms) => Function::HalfLife(ms),
                None => return plan_err!("'{t}' is not a half-life; write ewma(x, '30s'), with ms, s, m, h or d"),
            },
            ("ewma", Some(Some(a))) => match a.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(a))) if a > 0.0 && a <= 1.0 => Function::Alpha(a),
                _ => return plan_err!("the alpha of ewma lies above 0 and is at most 1; write ewma(x, 0.1)"),
            },
            _ => return plan_err!("the second argument of {name} is a constant, such as in lag(x, 2) or ewma(x, 0.1)"),
        };
        Ok(Self { function, value, ty })
    }

    /// The argument that is remembered.
    pub fn value(&self) -> &Arc<dyn PhysicalExpr> {
        &self.value
    }

    fn site(&self) -> Site {
        match self.function {
            Function::Lag(n) if self.ty == DataType::Utf8 => Site::Text { rows: n, places: Vec::new() },
            // Rows seen (at most n) and where the next goes; which are not NULL; the values.
            Function::Lag(n) => Site::Words { width: 1 + n.div_ceil(64) + n, words: Vec::new() },
            Function::Delta | Function::Alpha(_) => Site::Words { width: 2, words: Vec::new() },
            Function::HalfLife(_) => Site::Words { width: 3, words: Vec::new() },
        }
    }
}

fn literal(e: &Expr) -> Option<ScalarValue> {
    match e {
        Expr::Literal(v, _) => Some(v.clone()),
        Expr::Cast(c) => literal(&c.expr),
        Expr::Alias(a) => literal(&a.expr),
        _ => None,
    }
}

/// Milliseconds of `250ms`, `30s`, `1.5m`, `2h`, `7d`.
fn duration(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let unit = match text[digits..].trim() {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        "d" => 8.64e7,
        _ => return None,
    };
    text[..digits].parse::<f64>().ok().map(|n| n * unit).filter(|ms| ms.is_finite() && *ms > 0.0)
}

/// What one call keeps, by the device's place. All zeros, or empty: the device had no row yet.
#[derive(Debug, Clone, PartialEq)]
enum Site {
    Words {
        width: usize,
        words: Vec<u64>,
    },
    /// The last rows, oldest first.
    Text {
        rows: usize,
        places: Vec<Vec<Option<Box<str>>>>,
    },
}

/// What a step remembers of its devices between rows.
#[derive(Debug, Default)]
pub struct Memory {
    sites: Vec<Site>,
    undo: Vec<(u32, u32)>,
    undo_words: Vec<u64>,
    undo_texts: Vec<Vec<Option<Box<str>>>>,
}

/// The rows of a batch as memory needs them: for each, the place of its device and its event time.
#[derive(Debug)]
pub struct RowPlaces<'a> {
    /// The device's place.
    pub places: &'a [u32],
    /// Event time, milliseconds.
    pub times: &'a [i64],
}

impl Memory {
    /// Empty, for these calls.
    pub(super) fn new<'a>(calls: impl Iterator<Item = &'a Call>) -> Self {
        Self { sites: calls.map(Call::site).collect(), ..Self::default() }
    }

    /// Computes a call for rows (indices of source rows) and remembers them. Until [`Memory::keep`] or
    /// [`Memory::take_back`], all of it can be undone.
    pub(super) fn run(
        &mut self,
        site: usize,
        call: &Call,
        xs: &ArrayRef,
        rows: &[u32],
        at: &RowPlaces<'_>,
    ) -> Result<ArrayRef> {
        match &self.sites[site] {
            Site::Text { .. } => self.run_text(site, xs, rows, at),
            Site::Words { .. } => self.run_words(site, call, xs, rows, at),
        }
    }

    fn run_text(&mut self, site: usize, xs: &ArrayRef, rows: &[u32], at: &RowPlaces<'_>) -> Result<ArrayRef> {
        let Some(xs) = xs.as_string_opt::<i32>() else { return exec_err!("lag: not text but {}", xs.data_type()) };
        let Site::Text { rows: n, places } = &mut self.sites[site] else { return exec_err!("lag: no text is kept") };
        let mut out: Vec<Option<Box<str>>> = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let place = at.places[row as usize];
            if places.len() <= place as usize {
                places.resize(place as usize + 1, Vec::new());
            }
            let kept = &mut places[place as usize];
            self.undo.push((site as u32, place));
            self.undo_texts.push(kept.clone());
            let full = kept.len() == *n;
            out.push(if full { kept.remove(0) } else { None });
            kept.push(xs.is_valid(i).then(|| xs.value(i).into()));
        }
        Ok(Arc::new(out.iter().map(|t| t.as_deref()).collect::<StringArray>()))
    }

    fn run_words(
        &mut self,
        site: usize,
        call: &Call,
        xs: &ArrayRef,
        rows: &[u32],
        at: &RowPlaces<'_>,
    ) -> Result<ArrayRef> {
        let values = Words::of(xs)?;
        let Site::Words { width, words } = &mut self.sites[site] else { return exec_err!("no words are kept") };
        let mut out: Vec<Option<u64>> = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let (place, time) = (at.places[row as usize], at.times[row as usize]);
            let from = place as usize * *width;
            if words.len() < from + *width {
                words.resize(from + *width, 0);
            }
            let kept = &mut words[from..from + *width];
            self.undo.push((site as u32, place));
            self.undo_words.extend_from_slice(kept);
            let x = xs.is_valid(i).then(|| values.bits(i));
            out.push(match call.function {
                Function::Lag(n) => lag(kept, n, x),
                Function::Delta => delta(kept, x, values.is_time()),
                Function::Alpha(alpha) => average(kept, x, |e, x| e + alpha * (x - e)),
                Function::HalfLife(half_life) => {
                    let (before, (kept, last)) = (kept[0] != 0, kept.split_at_mut(2));
                    let then = last[0] as i64;
                    let elapsed = if before { time.saturating_sub(then).max(0) as f64 } else { 0.0 };
                    if x.is_some() {
                        last[0] = if before { then.max(time) } else { time } as u64;
                    }
                    let weight = libm::exp2(-elapsed / half_life);
                    average(kept, x, |e, x| x + weight * (e - x))
                }
            });
        }
        let ty = if matches!(call.function, Function::Lag(_)) { &call.ty } else { &DataType::Float64 };
        Ok(match ty {
            DataType::Float64 => Arc::new(out.iter().map(|w| w.map(f64::from_bits)).collect::<Float64Array>()),
            DataType::Int64 => Arc::new(out.iter().map(|w| w.map(|w| w as i64)).collect::<Int64Array>()),
            DataType::Boolean => Arc::new(out.iter().map(|w| w.map(|w| w != 0)).collect::<BooleanArray>()),
            DataType::Timestamp(..) => {
                Arc::new(out.iter().map(|w| w.map(|w| w as i64)).collect::<TimestampMillisecondArray>())
            }
            other => return exec_err!("a value of type {other} is not remembered"),
        })
    }

    /// What was remembered since the last call stays.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
        self.undo_words.clear();
        self.undo_texts.clear();
    }

    /// What was remembered since [`Memory::keep`] is taken back.
    pub(super) fn take_back(&mut self) {
        while let Some((site, place)) = self.undo.pop() {
            match &mut self.sites[site as usize] {
                Site::Words { width, words } => {
                    let (at, from) = (place as usize * *width, self.undo_words.len() - *width);
                    words[at..at + *width].copy_from_slice(&self.undo_words[from..]);
                    self.undo_words.truncate(from);
                }
                Site::Text { places, .. } => places[place as usize] = self.undo_texts.pop().unwrap_or_default(),
            }
        }
    }

    /// Forgets the device at a place.
    pub fn forget(&mut self, place: usize) {
        for site in &mut self.sites {
            match site {
                Site::Words { width, words } => {
                    if let Some(kept) = words.get_mut(place * *width..(place + 1) * *width) {
                        kept.fill(0);
                    }
                }
                Site::Text { places, .. } => {
                    if let Some(kept) = places.get_mut(place) {
                        *kept = Vec::new();
                    }
                }
            }
        }
    }

    /// Writes what is remembered into a snapshot, by device number.
    pub fn snapshot(&self, devices: &DeviceTable, w: &mut Writer) {
        w.u32(self.sites.len() as u32);
        for site in &self.sites {
            let count = w.bytes.len();
            let mut n = 0u32;
            w.u32(0);
            for number in (0..devices.numbers() as u32).filter(|n| devices.is_live(*n)) {
                let place = devices.place(number);
                match site {
                    Site::Words { width, words } => {
                        let Some(kept) = words.get(place * width..(place + 1) * width) else { continue };
                        if kept.iter().any(|w| *w != 0) {
                            n += 1;
                            w.u32(number);
                            kept.iter().for_each(|v| w.u64(*v));
                        }
                    }
                    Site::Text { places, .. } => {
                        let Some(kept) = places.get(place).filter(|k| !k.is_empty()) else { continue };
                        n += 1;
                        w.u32(number);
                        w.u32(kept.len() as u32);
                        for text in kept {
                            w.u8(u8::from(text.is_some()));
                            w.str(text.as_deref().unwrap_or(""));
                        }
                    }
                }
            }
            w.bytes[count..count + 4].copy_from_slice(&n.to_le_bytes());
        }
    }

    /// Reads what [`Memory::snapshot`] wrote, into a memory of the same calls.
    pub fn restore(&mut self, devices: &DeviceTable, r: &mut Reader<'_>) -> Result<(), CodecError> {
        let sites = r.u32()? as usize;
        if sites != self.sites.len() {
            return Err(r.invalid(format!("{sites} row functions, this step has {}", self.sites.len())));
        }
        for site in &mut self.sites {
            let least = match site {
                Site::Words { width, .. } => 4 + 8 * *width,
                Site::Text { .. } => 8,
            };
            for _ in 0..r.count(least)? {
                let number = r.u32()?;
                if !devices.is_live(number) {
                    return Err(r.invalid(format!("there is no device number {number}")));
                }
                let place = devices.place(number);
                match site {
                    Site::Words { width, words } => {
                        if words.len() < (place + 1) * *width {
                            words.resize((place + 1) * *width, 0);
                        }
                        for v in &mut words[place * *width..(place + 1) * *width] {
                            *v = r.u64()?;
                        }
                    }
                    Site::Text { rows, places } => {
                        if places.len() <= place {
                            places.resize(place + 1, Vec::new());
                        }
                        let n = r.count(5)?;
                        if n > *rows {
                            return Err(r.invalid(format!("{n} rows of text where {rows} are kept")));
                        }
                        for _ in 0..n {
                            let present = r.u8()? == 1;
                            let text = r.str()?;
                            places[place].push(present.then(|| text.into()));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A column as 64-bit words.
enum Words<'a> {
    F64(&'a [f64]),
    I64(&'a [i64]),
    Time(&'a [i64]),
    Bool(&'a BooleanArray),
}

impl<'a> Words<'a> {
    fn of(xs: &'a ArrayRef) -> Result<Self> {
        Ok(match xs.data_type() {
            DataType::Float64 => Words::F64(xs.as_primitive::<Float64Type>().values()),
            DataType::Int64 => Words::I64(xs.as_primitive::<Int64Type>().values()),
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                Words::Time(xs.as_primitive::<TimestampMillisecondType>().values())
            }
            DataType::Boolean => Words::Bool(xs.as_boolean()),
            other => return exec_err!("a value of type {other} is not remembered"),
        })
    }

    fn bits(&self, i: usize) -> u64 {
        match self {
            Words::F64(xs) => xs[i].to_bits(),
            Words::I64(xs) | Words::Time(xs) => xs[i] as u64,
            Words::Bool(xs) => u64::from(xs.value(i)),
        }
    }

    fn is_time(&self) -> bool {
        matches!(self, Words::Time(_))
    }
}

fn lag(kept: &mut [u64], n: usize, x: Option<u64>) -> Option<u64> {
    let flags = n.div_ceil(64);
    // Low half: rows seen, at most n. High half: where the next goes, which is where the oldest is once n were seen.
    let (seen, next) = ((kept[0] & 0xffff_ffff) as usize, (kept[0] >> 32) as usize % n);
    let (flag, bit) = (1 + next / 64, 1u64 << (next % 64));
    let value = 1 + flags + next;
    let out = (seen == n && kept[flag] & bit != 0).then(|| kept[value]);
    match x {
        Some(x) => (kept[flag], kept[value]) = (kept[flag] | bit, x),
        None => (kept[flag], kept[value]) = (kept[flag] & !bit, 0),
    }
    kept[0] = (seen + 1).min(n) as u64 | (((next + 1) % n) as u64) << 32;
    out
}

fn delta(kept: &mut [u64], x: Option<u64>, time: bool) -> Option<u64> {
    let x = x?;
    let out = (kept[0] != 0).then(|| {
        let difference = match time {
            true => (x as i64).saturating_sub(kept[1] as i64) as f64,
            false => f64::from_bits(x) - f64::from_bits(kept[1]),
        };
        difference.to_bits()
    });
    (kept[0], kept[1]) = (1, x);
    out
}

fn average(kept: &mut [u64], x: Option<u64>, step: impl FnOnce(f64, f64) -> f64) -> Option<u64> {
    if let Some(x) = x {
        let e = if kept[0] != 0 { step(f64::from_bits(kept[1]), f64::from_bits(x)) } else { f64::from_bits(x) };
        (kept[0], kept[1]) = (1, e.to_bits());
    }
    (kept[0] != 0).then(|| kept[1])
}
