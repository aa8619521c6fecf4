use super::*;

#[test]
fn a_strangers_words_are_one_short_line() {
    let said = error::words(&format!("a\nb\u{1b}[31m{}", "x".repeat(1000)));
    assert!(said.starts_with("a b [31mxxx") && said.ends_with('…'));
    assert_eq!(said.chars().count(), 301);
}
