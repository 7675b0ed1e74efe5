//! Weights of words, as scikit-learn leaves them: a vocabulary and a vector.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use npyz::NpyFile;

use crate::{DataError, Place, stream};

/// A vocabulary has some MiB: 256 MiB.
const LARGEST: u64 = 256 << 20;

/// The inverse document frequencies of words: from a JSON object of words and their places (`tfidf_vocab.json`), and a vector of
/// float64 with the frequency at each place (`idf.npy`).
///
/// # Errors
/// A file cannot be read or is not what it should be; a place is beyond the vector; a frequency is not a number.
pub fn word_weights(vocabulary: &Path, idf: &Path) -> Result<HashMap<String, f64>, DataError> {
    let text = stream::read_text(vocabulary, LARGEST)?;
    let places: HashMap<String, usize> = serde_json::from_str(&text).map_err(|error| {
        DataError::new(vocabulary, Place::Line(error.line().max(1)), error.to_string())
            .hint("a vocabulary is one JSON object of words and their places, as scikit-learn's `vocabulary_`")
    })?;
    let wrong = |message: String| DataError::new(idf, Place::File, message).hint("save it by numpy.save(…, idf_)");
    let file = File::open(idf).map_err(|error| wrong(error.to_string()))?;
    let length = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
    let vector = NpyFile::new(BufReader::new(file)).map_err(|error| wrong(format!("no npy file: {error}")))?;
    // What its header promises must be there before anything is made for it.
    let promised: u64 = vector.shape().iter().fold(8, |bytes, side| bytes.saturating_mul(*side));
    if vector.shape().len() > 2 || promised > length {
        return Err(wrong(format!("a vector of {:?} does not fit in {length} bytes", vector.shape())));
    }
    let values: Vec<f64> = vector.into_vec().map_err(|error| wrong(format!("no vector of float64: {error}")))?;
    let mut weights = HashMap::with_capacity(places.len());
    for (word, place) in places {
        match values.get(place) {
            Some(value) if value.is_finite() => weights.insert(word, *value),
            Some(_) => return Err(wrong(format!("the weight of {word:?} is not a number"))),
            None => {
                let message = format!("{word:?} has place {place}, and the vector has {} numbers", values.len());
                return Err(wrong(message));
            }
        };
    }
    Ok(weights)
}
