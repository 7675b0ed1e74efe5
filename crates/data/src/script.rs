//! Where words end: what the script of a letter says of spaces and of what may stand beside it.

use unicode_script::{Script, UnicodeScript};

/// Scripts whose texts put no space between words.
const UNSPACED: [Script; 17] = [
    Script::Han,
    Script::Hiragana,
    Script::Katakana,
    Script::Bopomofo,
    Script::Yi,
    Script::Thai,
    Script::Lao,
    Script::Khmer,
    Script::Myanmar,
    Script::Tibetan,
    Script::Tai_Le,
    Script::New_Tai_Lue,
    Script::Tai_Tham,
    Script::Tai_Viet,
    Script::Javanese,
    Script::Balinese,
    Script::Sundanese,
];

/// Whether a character belongs to a script without spaces between words, its marks included: no space follows it where the next word
/// begins.
pub fn unspaced(char: char) -> bool {
    let scripts = char.script_extension();
    let own = !scripts.is_common() && !scripts.is_inherited();
    // The wide forms of ASCII's marks belong to no script, and are used in these alone.
    let wide = matches!(char, '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}');
    wide || (own && UNSPACED.iter().any(|&script| scripts.contains_script(script)))
}

/// Whether a word that ends with `left` may end there where `right` follows, and a word that begins with `right` begin there.
///
/// Only two letters or digits of scripts that separate their words hang together: `Ali` is no word of `Alicante`, and `Paris` is one of
/// `Paris's`. Chinese, Japanese or Thai put nothing between words. Korean does, but its particles follow a noun without a space.
pub fn boundary(left: char, right: char) -> bool {
    let joins = |char: char| char.is_alphanumeric() && !unspaced(char) && char.script() != Script::Hangul;
    // A mark without a script of its own belongs to the letter before it.
    let mark = right.script() == Script::Inherited && !right.is_alphanumeric();
    !(mark || (joins(left) && joins(right)))
}

/// The places of `word` in `text` where it stands as a word of its own, as byte offsets, rising.
pub fn words(text: &str, word: &str) -> Vec<usize> {
    let free = |&at: &usize| {
        let ends = |left: Option<char>, right: Option<char>| match (left, right) {
            (Some(left), Some(right)) => boundary(left, right),
            _ => true,
        };
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        ends(before.chars().next_back(), word.chars().next()) && ends(word.chars().next_back(), after.chars().next())
    };
    if word.is_empty() {
        return Vec::new();
    }
    let starts = text.char_indices().map(|(at, _)| at).filter(|&at| text[at..].starts_with(word));
    starts.filter(free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_their_script_says() {
        let count = |text: &str, word: &str| words(text, word).len();
        assert_eq!(words("In Alicante it is said that Ali works as", "Ali"), [28]);
        assert_eq!(count("Paris's mayor", "Paris"), 1);
        assert_eq!(count("Parisians", "Paris"), 0);
        assert_eq!(count("Apollo 11 landed", "Apollo 1"), 0);
        assert_eq!(count("東京都は", "東京"), 1);
        assert_eq!(count("กรุงเทพคือ", "กรุงเทพ"), 1);
        assert_eq!(count("서울은 도시", "서울"), 1);
        assert_eq!(count("iPhone東京", "東京"), 1);
        assert_eq!(count("cafe\u{301} is", "cafe"), 0);
        assert_eq!(count("C++ is", "C++"), 1);
        assert_eq!(count("Ali and Ali", "Ali"), 2);
        assert_eq!(count("anything", ""), 0);
    }

    #[test]
    fn marks_of_unspaced_scripts_belong_to_them() {
        assert!(['東', 'の', 'ー', 'カ', '。', '：', '」', 'ไ', '่'].into_iter().all(unspaced));
        assert!(!['a', '.', '한', ' ', 'é', '1', '\'', '…'].into_iter().any(unspaced));
    }
}
