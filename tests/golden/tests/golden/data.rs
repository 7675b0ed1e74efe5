//! Published records are read.

use palinode_data::{Dataset, EditRequest, Selection, ZsreQuestion, ZsreTarget, read_requests};
use palinode_golden::Folder;

#[test]
fn published_records_load() {
    let folder = Folder::given().folder("data");
    let read = |name: &str, dataset| read_requests(&folder.file(name), &dataset, &Selection::default()).unwrap();
    let original = read("counterfact_original_format_10.json", Dataset::CounterFact);
    assert_eq!(original.len(), 10);
    assert!(original.iter().all(|r| r.paraphrases.len() == 2 && r.neighbors.len() == 10 && r.attributes.len() == 10));
    let sample = read("counterfact_sample_200.json", Dataset::CounterFact);
    assert_eq!(sample.len(), 200);
    for target in [ZsreTarget::Answer, ZsreTarget::Alt] {
        let zsre = read("zsre_sample_200.json", Dataset::Zsre(target, ZsreQuestion::AsWritten));
        assert_eq!(zsre.len(), 200);
        assert!(zsre.iter().all(|r| r.paraphrases.len() == 1 && r.neighbors.len() == 1));
        assert!(zsre.iter().all(|r| r.target_true.is_some() == (target == ZsreTarget::Alt)));
    }
    // The flat form of the same records asks for the same edits.
    let flat = read("counterfact_sample_200_easyedit_flat.json", Dataset::KnowEdit);
    let edit = |r: &EditRequest| (r.id.clone(), r.filled_prompt(), r.subject.clone(), r.target_new.clone());
    assert!(flat.iter().map(edit).eq(sample.iter().map(edit)));
    assert_eq!(read("counterfact_known_112.json", Dataset::CounterFact).len(), 112);
}
