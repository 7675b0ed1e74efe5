//! JSON whose objects name no field twice. Of two values of one field, readers of JSON keep the last and say nothing.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A value, and the first field that stands twice in an object.
pub struct Unique {
    value: Value,
    twice: Option<String>,
}

impl Unique {
    /// The value.
    ///
    /// # Errors
    /// What stands twice.
    pub fn value(self) -> Result<Value, String> {
        match self.twice {
            None => Ok(self.value),
            Some(field) => Err(format!("the field `{field}` stands twice in one object")),
        }
    }
}

impl From<Value> for Unique {
    fn from(value: Value) -> Self {
        Self { value, twice: None }
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        let (mut values, mut twice) = (Vec::new(), None);
        while let Some(read) = seq.next_element::<Unique>()? {
            twice = twice.or(read.twice);
            values.push(read.value);
        }
        Ok(Unique { value: Value::Array(values), twice })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let (mut fields, mut twice) = (Map::new(), None);
        while let Some((name, read)) = map.next_entry::<String, Unique>()? {
            twice = twice.or(read.twice);
            if fields.contains_key(&name) {
                twice.get_or_insert_with(|| name.clone());
            }
            fields.insert(name, read.value);
        }
        Ok(Unique { value: Value::Object(fields), twice })
    }
}
