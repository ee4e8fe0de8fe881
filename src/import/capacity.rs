//! `ramGb` as a quantity.

/// More than any machine has; a quantity ends at 8Ei.
const MOST_GIB: f64 = 1e9;

/// The old dashboard counted 2³⁰ bytes to a GB. The error says why a number cannot be a size of memory.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within bounds by the first line
pub fn memory(ram_gb: f64) -> Result<String, &'static str> {
    if !(ram_gb > 0.0 && ram_gb <= MOST_GIB) {
        return Err("is more memory than any machine has");
    }
    let mebibytes = (ram_gb * 1024.0).round() as u64;
    match mebibytes {
        0 => Err("is less than a megabyte"),
        whole if whole.is_multiple_of(1024) => Ok(format!("{}Gi", whole / 1024)),
        part => Ok(format!("{part}Mi")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::quantity::Quantity;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(16.0, Ok("16Gi"))]
    #[case(23.5, Ok("24064Mi"))]
    #[case(23.4321, Ok("23994Mi"))]
    #[case(0.5, Ok("512Mi"))]
    #[case(0.001, Ok("1Mi"))]
    #[case(1e9, Ok("1000000000Gi"))]
    #[case(1e-9, Err("is less than a megabyte"))]
    #[case(1e300, Err("is more memory than any machine has"))]
    fn memory_is_a_whole_number_of_gi_or_mi(#[case] ram_gb: f64, #[case] written: Result<&str, &str>) {
        assert_eq!(memory(ram_gb).as_deref().map_err(|error| *error), written);
    }

    proptest! {
        #[test]
        fn memory_is_as_much_as_was_said(ram_gb in 0.01..1e6_f64) {
            let bytes = Quantity(memory(ram_gb).unwrap()).value().unwrap();
            prop_assert!((bytes - ram_gb * 1_073_741_824.0).abs() <= 524_288.0);
        }
    }
}
