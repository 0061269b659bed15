//! The words a step keeps for a device and pane: all its channels and pairs, one after another.

use arrow::buffer::NullBuffer;

use super::pairs::{self, PAIR_WORDS, PairStatistic};
use super::stats::{Layout, Statistic};

/// A channel's value for each row that reached the step, and which of them are null.
pub type ChannelValues<'a> = (&'a [f64], Option<&'a NullBuffer>);

/// One numeric input and what is kept of it.
#[derive(Debug, Clone, Copy)]
struct Channel {
    base: usize,
    layout: Layout,
}

/// Two numeric inputs taken together.
#[derive(Debug, Clone, Copy)]
struct Pair {
    base: usize,
    x: usize,
    y: usize,
}

/// Where each channel's and pair's words stand.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    channels: Vec<Channel>,
    pairs: Vec<Pair>,
    stride: usize,
}

impl Shape {
    /// Channels with these layouts, the `i`-th of input `i`; then pairs of inputs `(x, y)`.
    pub fn new(layouts: &[Layout], pairs: &[(usize, usize)]) -> Self {
        let mut stride = 0;
        let mut room = |words: usize| {
            let base = stride;
            stride += words;
            base
        };
        let channels = layouts.iter().map(|&layout| Channel { base: room(layout.words()), layout }).collect();
        let pairs = pairs.iter().map(|&(x, y)| Pair { base: room(PAIR_WORDS), x, y }).collect();
        Self { channels, pairs, stride }
    }

    /// How many words a device and pane takes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of each channel, a device and pane.
    pub fn channel_bytes(&self) -> impl Iterator<Item = usize> {
        self.channels.iter().map(|c| c.layout.words() * size_of::<f64>())
    }

    /// Bytes of all pairs, a device and pane.
    pub fn pair_bytes(&self) -> usize {
        self.pairs.len() * PAIR_WORDS * size_of::<f64>()
    }

    /// The words of no rows.
    pub(super) fn clear(&self, words: &mut [f64]) {
        words.fill(0.0);
        for c in &self.channels {
            c.layout.clear(&mut words[c.base..c.base + c.layout.words()]);
        }
    }

    /// Takes row `k` of the inputs, at `seconds` since the pane's start.
    #[inline(always)]
    pub(super) fn update(&self, words: &mut [f64], inputs: &[ChannelValues<'_>], k: usize, seconds: f64) {
        for (c, (xs, nulls)) in self.channels.iter().zip(inputs) {
            if nulls.is_none_or(|b| b.is_valid(k)) {
                c.layout.update(&mut words[c.base..c.base + c.layout.words()], xs[k], seconds);
            }
        }
        for p in &self.pairs {
            let ((xs, no_x), (ys, no_y)) = (inputs[p.x], inputs[p.y]);
            if no_x.is_none_or(|b| b.is_valid(k)) && no_y.is_none_or(|b| b.is_valid(k)) {
                pairs::update(&mut words[p.base..p.base + PAIR_WORDS], xs[k], ys[k]);
            }
        }
    }

    /// Adds to `a` the rows of `b`, whose seconds count from `shift` seconds after those of `a`.
    pub(super) fn merge(&self, a: &mut [f64], b: &[f64], shift: f64) {
        for c in &self.channels {
            let range = c.base..c.base + c.layout.words();
            c.layout.merge(&mut a[range.clone()], &b[range], shift);
        }
        for p in &self.pairs {
            let range = p.base..p.base + PAIR_WORDS;
            pairs::merge(&mut a[range.clone()], &b[range]);
        }
    }

    /// A statistic of a channel, or `None` where SQL says NULL.
    pub(super) fn value(&self, words: &[f64], channel: usize, stat: Statistic) -> Option<f64> {
        let c = &self.channels[channel];
        c.layout.value(&words[c.base..c.base + c.layout.words()], stat)
    }

    /// A statistic of a pair.
    pub(super) fn pair_value(&self, words: &[f64], pair: usize, stat: PairStatistic) -> Option<f64> {
        let p = &self.pairs[pair];
        stat.value(&words[p.base..p.base + PAIR_WORDS])
    }
}
