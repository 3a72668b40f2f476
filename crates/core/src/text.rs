//! Texts that come from outside and stay in the state: cut to a length that a record holds.

/// The text, cut at a character's boundary and ended by an ellipsis if it is longer than [`MOST`].
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > MOST {
        let room = MOST - ELLIPSIS.len_utf8();
        let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last();
        text.truncate(end.unwrap_or(0));
        text.push(ELLIPSIS);
    }
    text
}

/// The longest text, in bytes.
pub(crate) const MOST: usize = 300;
const ELLIPSIS: char = '…';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(bounded("short".to_owned()), "short");
        assert_eq!(bounded("x".repeat(MOST)), "x".repeat(MOST));
        let cut = bounded("é".repeat(MOST));
        assert!(cut.len() <= MOST && cut.ends_with('…') && cut.starts_with("éé"), "{cut}");
    }
}
