//! Whole numbers out of what agents measure. Pure.

/// Half away from zero, as people round; what does not fit 64 bits is no value.
pub fn round(number: f64) -> Option<i64> {
    let rounded = number.round();
    #[allow(clippy::cast_possible_truncation)]
    (rounded.is_finite() && rounded.abs() < 9.2e18).then_some(rounded as i64)
}
