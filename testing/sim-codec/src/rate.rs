// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which quantiser the next picture gets. Pure: sizes in, quantisers out.
//!
//! Hardware's rate control is a firmware table; what matters to its users is that the mean comes out near the
//! target within a second, that limits hold, and that a new target needs no key frame.

use crate::Codec;

/// How bits are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateMode {
    /// Mean bitrate near the target.
    Constant,
    /// As `Constant` with more room for single pictures.
    Variable,
    /// Always the same quantiser.
    FixedQp,
}

/// Settings of the rate control. Quantisers are in the codec's own unit ([`Codec::qp_range`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateControl {
    /// How bits are spent.
    pub mode: RateMode,
    /// Target in bit/s.
    pub bitrate: u32,
    /// Quantiser of the first picture, and of all with [`RateMode::FixedQp`].
    pub qp_init: u8,
    /// Best quantiser of other pictures than key frames.
    pub qp_min: u8,
    /// Worst quantiser of other pictures than key frames.
    pub qp_max: u8,
    /// Best quantiser of key frames.
    pub qp_min_key: u8,
    /// Worst quantiser of key frames.
    pub qp_max_key: u8,
}

impl RateControl {
    /// Constant bitrate with all of the codec's quantisers.
    pub fn new(codec: Codec, bitrate: u32) -> Self {
        let (low, high) = codec.qp_range();
        Self {
            mode: RateMode::Constant,
            bitrate,
            qp_init: low.midpoint(high),
            qp_min: low,
            qp_max: high,
            qp_min_key: low,
            qp_max_key: high,
        }
    }

    /// One quantiser for all pictures.
    pub fn fixed(codec: Codec, qp: u8) -> Self {
        Self { mode: RateMode::FixedQp, qp_init: qp, ..Self::new(codec, 1_000_000) }
    }
}

/// Steps of this scale halve or double the bits, roughly, six at a time: the QP of H.264.
fn to_scale(codec: Codec, qp: u8) -> f64 {
    match codec {
        Codec::H264 | Codec::H265 => qp.into(),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => f64::from(qp) / 2.0,
        _ => 6.0 * f64::from(qp.max(1)).log2(),
    }
}

fn from_scale(codec: Codec, scale: f64) -> u8 {
    let qp = match codec {
        Codec::H264 | Codec::H265 => scale,
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => scale * 2.0,
        _ => (scale / 6.0).exp2(),
    };
    // A float to integer cast saturates.
    qp.round().clamp(0.0, 63.0) as u8
}

/// Chooses quantisers.
#[derive(Debug)]
pub(crate) struct Chooser {
    codec: Codec,
    /// Bits × 2^(scale/6) of the last picture: key frames, others.
    complexity: [Option<f64>; 2],
    /// Bits above (or below) what the target allows so far.
    debt: f64,
}

impl Chooser {
    pub(crate) const fn new(codec: Codec) -> Self {
        Self { codec, complexity: [None, None], debt: 0.0 }
    }

    /// The quantiser of the next picture.
    pub(crate) fn choose(&self, control: &RateControl, framerate: f64, key: bool) -> u8 {
        let (low, high) =
            if key { (control.qp_min_key, control.qp_max_key) } else { (control.qp_min, control.qp_max) };
        let range = self.codec.qp_range();
        let (low, high) = (low.clamp(range.0, range.1), high.clamp(range.0, range.1));
        let init = control.qp_init.clamp(range.0, range.1);
        if control.mode == RateMode::FixedQp {
            return init;
        }
        let qp = match self.complexity.get(usize::from(!key)).copied().flatten() {
            None => init,
            Some(complexity) => {
                let mean = f64::from(control.bitrate.max(1)) / framerate.clamp(1.0, 1000.0);
                // Pay back over half a second; a key frame may take six pictures' worth.
                let back = self.debt / (framerate / 2.0).max(1.0);
                let most = if control.mode == RateMode::Variable { 3.0 } else { 2.0 };
                let wanted = if key { 6.0 * mean } else { (mean - back).clamp(mean / 4.0, mean * most) };
                from_scale(self.codec, 6.0 * (complexity / wanted).log2())
            }
        };
        qp.clamp(low, high.max(low))
    }

    /// A picture came out with this many bits.
    pub(crate) fn coded(&mut self, control: &RateControl, framerate: f64, key: bool, qp: u8, bits: usize) {
        let bits = bits as f64;
        let complexity = bits.max(64.0) * (to_scale(self.codec, qp) / 6.0).exp2();
        if let Some(slot) = self.complexity.get_mut(usize::from(!key)) {
            *slot = Some(slot.map_or(complexity, |old| old.midpoint(complexity)));
        }
        let mean = f64::from(control.bitrate.max(1)) / framerate.clamp(1.0, 1000.0);
        // What was saved is not kept for more than half a second, and debts are forgiven after two.
        let second = f64::from(control.bitrate.max(1));
        self.debt = (self.debt + bits - mean).clamp(-second / 2.0, second * 2.0);
    }

    /// The target changed: nobody pays debts of another bitrate.
    pub(crate) const fn forget_debt(&mut self) {
        self.debt = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source whose pictures take `complexity / 2^(qp/6)` bits, key frames five times as many.
    fn run(control: &RateControl, chooser: &mut Chooser, pictures: usize, complexity: f64) -> f64 {
        let mut sum = 0.0;
        for n in 0..pictures {
            let key = n % 50 == 0;
            let qp = chooser.choose(control, 25.0, key);
            let bits = complexity * if key { 5.0 } else { 1.0 } / (f64::from(qp) / 6.0).exp2();
            chooser.coded(control, 25.0, key, qp, bits as usize);
            sum += bits;
        }
        sum * 25.0 / pictures as f64
    }

    #[test]
    fn the_mean_comes_out_near_the_target() {
        for target in [200_000, 1_000_000, 8_000_000] {
            let control = RateControl::new(Codec::H264, target);
            let mut chooser = Chooser::new(Codec::H264);
            run(&control, &mut chooser, 50, 1e6);
            let mean = run(&control, &mut chooser, 250, 1e6);
            assert!((mean / f64::from(target) - 1.0).abs() < 0.15, "{mean} for {target}");
        }
    }

    #[test]
    fn a_new_target_takes_effect_within_a_second() {
        let mut control = RateControl::new(Codec::H264, 4_000_000);
        let mut chooser = Chooser::new(Codec::H264);
        run(&control, &mut chooser, 100, 1e6);
        control.bitrate = 500_000;
        chooser.forget_debt();
        let mean = run(&control, &mut chooser, 50, 1e6);
        assert!(mean < 700_000.0, "{mean}");
    }

    #[test]
    fn limits_hold() {
        let control =
            RateControl { qp_min: 30, qp_max: 35, qp_max_key: 20, ..RateControl::new(Codec::H264, 1000) };
        let mut chooser = Chooser::new(Codec::H264);
        for _ in 0..20 {
            assert!(chooser.choose(&control, 25.0, true) <= 20);
            assert!((30..=35).contains(&chooser.choose(&control, 25.0, false)));
            chooser.coded(&control, 25.0, false, 35, 1_000_000);
            chooser.coded(&control, 25.0, true, 20, 1_000_000);
        }
        let fixed = RateControl::fixed(Codec::H264, 33);
        assert_eq!(chooser.choose(&fixed, 25.0, true), 33);
        assert_eq!(chooser.choose(&fixed, 25.0, false), 33);
    }
}
