//! The fixed-length text fields of the specification: ASCII padded with spaces (Base, "Conventions"), or NUL-terminated.

/// Makes a field of `N` bytes from text: left-justified, padded with spaces, cut where it is too long;
/// what is not printable ASCII becomes `_`.
#[must_use]
pub fn ascii_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, symbol) in field.iter_mut().zip(text.chars()) {
        *slot = u8::try_from(symbol)
            .ok()
            .filter(|byte| (0x20..=0x7e).contains(byte))
            .unwrap_or(b'_');
    }
    field
}

/// Reads a text field of either padding: up to the first NUL, without trailing spaces; what is not
/// printable ASCII becomes `_`, so that a foreign device can't write to a terminal.
#[must_use]
pub fn ascii_text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    let text: String = field[..end]
        .iter()
        .map(|&byte| match byte {
            0x20..=0x7e => char::from(byte),
            _ => '_',
        })
        .collect();
    text.trim_end().to_owned()
}

/// A NUL-padded field of `N` bytes; `None` where the text and its closing NUL do not fit.
pub(crate) fn nul_padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [0; N];
    if text.len() >= N {
        return None;
    }
    field[..text.len()].copy_from_slice(text.as_bytes());
    Some(field)
}

/// The text in front of the first NUL; `None` where there is no NUL or the text is not UTF-8.
pub(crate) fn nul_terminated(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(&field[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_padded_fields_are_cut_and_cleaned() {
        assert_eq!(ascii_field::<6>("ab"), *b"ab    ");
        assert_eq!(ascii_field::<3>("abcdef"), *b"abc");
        assert_eq!(ascii_field::<4>("a\u{1b}é!"), *b"a__!");
        assert_eq!(ascii_text(b"ab    "), "ab");
        assert_eq!(ascii_text(b"ab\0cd"), "ab");
        assert_eq!(ascii_text(b"a\x1bb "), "a_b");
    }

    #[test]
    fn nul_terminated_fields_need_their_nul() {
        assert_eq!(nul_padded::<4>("abc"), Some(*b"abc\0"));
        assert_eq!(nul_padded::<4>("abcd"), None);
        assert_eq!(nul_terminated(b"abc\0"), Some("abc"));
        assert_eq!(nul_terminated(b"abcd"), None);
        assert_eq!(nul_terminated(b"\xff\0"), None);
    }
}
