//! Words as NLTK's `NLTKWordTokenizer` (3.9) gives them: the texts are ours, the words its own.

use palinode_eval::Words;

#[test]
fn words_are_those_of_the_treebank() {
    let cases: Vec<(String, Vec<String>)> = serde_json::from_str(include_str!("fixtures/words.json")).unwrap();
    assert!(cases.len() > 10);
    for (text, words) in cases {
        assert_eq!(Words::Treebank.of(&text), words, "{text:?}");
    }
    assert_eq!(Words::Whitespace.of(" it's  so. "), ["it's", "so."]);
}
