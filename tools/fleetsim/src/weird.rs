//! Content that no well-behaved host sends, and the random numbers for it.
//!
//! Pure: bytes only. When it is sent is decided in `inject.rs`.

/// One step of splitmix64: spreads any number over 64 bits.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 up to but without 1.
pub fn fraction(seed: u64) -> f64 {
    f64::from(u32::try_from(mix(seed) >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

/// Random printable bytes. Never JSON: they begin with a letter that no JSON
/// value begins with.
pub fn garbage(seed: u64) -> Vec<u8> {
    let length = 100 + mix(seed) % 900;
    let byte = |n: u64| u8::try_from(33 + mix(seed ^ n) % 94).unwrap_or(b'!');
    std::iter::once(b'Z').chain((1..length).map(byte)).collect()
}

/// A login page.
pub const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
<body><h1>Sign in</h1><form method=\"post\" action=\"/login\"><input name=\"user\">\
<input name=\"password\" type=\"password\"><button>Sign in</button></form></body></html>\n";

/// What another protocol says first.
pub const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";

/// Put into names: colour codes, an override of the text's direction, a NUL,
/// a bell, a line break, a zero-width space and a C1 control.
pub const CONTROL_CHARS: &str = "\u{1b}[31mred\u{1b}[0m\u{202e}cod\u{202c}\u{0}\u{7}\r\n\u{200b}\u{9b}2J";

/// Arrays in arrays, where a document is expected.
pub fn deep_json(depth: u32) -> Vec<u8> {
    let depth = depth as usize;
    let mut body = br#"{"version":"#.to_vec();
    body.resize(body.len() + depth, b'[');
    body.resize(body.len() + depth, b']');
    body.push(b'}');
    body
}

/// A valid gzip file holding `data`, stored without compression: a client that
/// decodes it finds the ordinary answer.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = data.chunks(0xffff).count().max(1);
    let mut chunks = data.chunks(0xffff);
    for number in 1..=blocks {
        let chunk = chunks.next().unwrap_or_default();
        let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
        file.push(u8::from(number == blocks));
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(chunk);
    }
    file.extend(crc32(data).to_le_bytes());
    file.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    file
}

/// CRC-32 as gzip uses it. Bit by bit: the bodies are small.
fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !data.iter().fold(!0, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_and_gzip_frame() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let file = gzip(b"hi");
        assert_eq!(file[10..17], [1, 2, 0, 0xfd, 0xff, b'h', b'i']);
        assert_eq!(file[file.len() - 4..], [2, 0, 0, 0]);
        assert_eq!(gzip(&vec![7; 0x1_0000]).len(), 10 + 5 + 0xffff + 5 + 1 + 8);
        assert_eq!(gzip(b"").len(), 10 + 5 + 8);
    }

    #[test]
    fn garbage_is_printable_repeatable_and_not_json() {
        let body = garbage(5);
        assert_eq!(body, garbage(5));
        assert_ne!(body, garbage(6));
        assert!(body.len() >= 100 && body.iter().all(u8::is_ascii_graphic));
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_err());
    }

    #[test]
    fn deep_json_is_as_deep_as_asked() {
        assert_eq!(deep_json(2), br#"{"version":[[]]}"#);
    }

    #[test]
    fn fractions_stay_below_one() {
        assert!((0..1000).map(fraction).all(|x| (0.0..1.0).contains(&x)));
    }
}
