//! What a JSON path may cost at most. A path is written by whoever may create a plugin and is run on what an agent says,
//! so that both together must not be able to use up the operator. Pure.
//!
//! An answer has at most 20,000 values. Each `..`, `*`, slice or filter can visit them all, and each list of selectors
//! repeats what follows it; so two of the first and 32 of the second are the most.

/// Parts of a path that may match any number of values.
const WIDE_MAX: usize = 2;
/// Selectors that all lists of them may come to, multiplied: twice the GPUs that the largest machines have.
const SELECTORS_MAX: usize = 32;

/// What all paths of one plugin may cost together: eight that search twice, or 64 that search once. The dearest
/// plugin takes some 0.1 s for the dearest answer.
pub const COST_MAX: usize = 64;

/// What a path costs: nothing, 1 if it searches an answer, 8 if it searches what it found; each as many times as it has
/// selectors beside each other. Or where it is dearer than
/// it may be, and why. It need not be a valid path.
pub fn cost(path: &str) -> Result<usize, (usize, &'static str)> {
    let bytes = path.as_bytes();
    let mut quote = None;
    let mut wide = 0;
    let mut selectors = 1_usize;
    let mut lists: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'[') => lists.push(1),
            (None, b',') => lists.iter_mut().last().map_or((), |list| *list += 1),
            (None, b']') => selectors = selectors.saturating_mul(lists.pop().unwrap_or(1)),
            (None, b'(') => return Err((at, "functions and brackets are not supported")),
            // For each value it would be looked for anew from the top.
            (None, b'$') if at > 0 => return Err((at, "`$` only stands at the beginning")),
            (None, b'*' | b'?' | b':') => wide += 1,
            (None, b'.') if bytes.get(at + 1) == Some(&b'.') => {
                wide += 1;
                at += 1;
            }
            _ => {}
        }
        if wide > WIDE_MAX {
            return Err((at, "at most two of `..`, `*`, slices and filters in one path"));
        }
        if selectors > SELECTORS_MAX {
            return Err((at, "at most 32 selectors in one path"));
        }
        at += 1;
    }
    Ok([0, 1, 8][wide] * selectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("$.temperatures.gpu", 0)]
    #[case("$.temperatures['gpu0','gpu1','gpu2','gpu3']", 0)]
    #[case("$.gpus[*].temperature", 1)]
    #[case("$..temperature", 1)]
    #[case("$..gpus[*]", 8)]
    #[case("$..gpus['a','b','c']", 3)]
    #[case("$.list[0]", 0)]
    #[case("$['a..b','*','?(x)']", 0)]
    #[case("$.sensors[?@.kind == 'gpu'].value", 1)]
    fn ordinary_paths_are_cheap_enough(#[case] path: &str, #[case] expected: usize) {
        assert_eq!(cost(path), Ok(expected));
    }

    #[rstest]
    #[case("$..*..*")]
    #[case("$..*..*..*..*")]
    #[case("$[*][*][*]")]
    #[case("$[::1][::1]")]
    #[case("$[?@[?@[?@.a]]]")]
    #[case("$[?$..a]")]
    #[case("$['a','a']['a','a']['a','a']['a','a']['a','a']['a','a']")]
    #[case("$[?search(@, '(a+)+')]")]
    fn dear_ones_are_refused(#[case] path: &str) {
        assert!(cost(path).is_err());
    }
}
