//! Records of any file as requests, by a mapping.

use std::path::Path;

use serde_json::Value;

use crate::fields::Fields;
use crate::records::{told, with_lines};
use crate::{DataError, EditRequest, Mistakes, Place};

/// Turns every record of a file, which may be a Parquet table, into a request by a mapping; all mistakes at once. `whole` says that
/// each of its paths should lead somewhere.
pub fn requests(path: &Path, fields: &Fields, whole: bool) -> Result<Vec<EditRequest>, Mistakes> {
    let (lines, records): (Vec<Option<usize>>, Vec<Value>) = with_lines(path)?.into_iter().unzip();
    if let Some((_, message)) = fields.unknown(&records).filter(|_| whole && !records.is_empty()) {
        return Err(DataError::new(path, Place::File, message).into());
    }
    let (mut all, mut mistakes) = (Vec::new(), Mistakes::default());
    for (index, (record, line)) in records.iter().zip(lines).enumerate() {
        let made = fields.request(index, record).and_then(|request| {
            request.check().map_err(|(field, message)| (Some(field.to_owned()), message))?;
            Ok(request)
        });
        match made {
            Ok(request) => all.push(request),
            Err((field, message)) => mistakes.add(told(path, index, line, field, message, "")),
        }
    }
    if mistakes.count > 0 { Err(mistakes) } else { Ok(all) }
}
