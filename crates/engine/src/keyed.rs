//! What a key covers of a stage and its parameters.
//!
//! Parameters fall into three lists. Most change results, and are in every key. Some never change a bit, such as the name of a file whose
//! contents are in the key: they are in no key ([`StageKind::unkeyed`](crate::StageKind::unkeyed)). Some change last digits alone, such as
//! the size of an inner batch: under `numerics: portable` they are in no key, as machines are not, and under `numerics: strict` they are in
//! every key, since equal keys then promise equal bits. There a key holds what a parameter *comes to*
//! ([`StageKind::resolved`](crate::StageKind::resolved)): two ways to write the same batch are one key, and a default that is another
//! number on another device is another key.

use std::collections::BTreeMap;

use palinode_fingerprint::Fingerprint;
use palinode_pipeline::{DEVICE, Params, Stage, first_name};

/// The fingerprint of a stage with these parameters, without inputs and files. `environment` is empty unless numerics are strict.
pub(crate) fn fingerprint(kind: &dyn Stage, params: &Params, environment: &BTreeMap<String, String>) -> Fingerprint {
    let info = kind.info();
    let left_out = [info.unkeyed, info.last_digits].concat();
    let mut made = Fingerprint::new(info.name, info.version, &params.value, &left_out);
    if !environment.is_empty() {
        let device = environment.get(DEVICE).map(String::as_str);
        made.params.extend(kind.resolved(params, device));
        made.environment.clone_from(environment);
    }
    let named = made.params.into_iter().map(|(name, value)| (first_name(&name, info.renamed).to_owned(), value));
    made.params = named.collect();
    made
}
