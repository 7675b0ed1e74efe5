//! Numbers that carry their bounds, as types of parameters.
//!
//! A parameter of such a type refuses what lies outside when it is read, in one set of words for all stages, and the JSON schema has the
//! same bounds, so that an editor marks the value before anything is started. A value is written as the plain number that it is: the
//! type is in no key.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How [`out_of_range`] begins; [`crate::read_params`] tells such errors from others by it.
pub(crate) const OUT_OF_RANGE: &str = "out of range: ";

/// The error of a value outside of what a parameter may be: its reader learns that the parameter "is" the value and what was expected.
pub fn out_of_range<E: de::Error>(value: impl fmt::Display, expected: &str) -> E {
    E::custom(format_args!("{OUT_OF_RANGE}{value}, expected {expected}"))
}

macro_rules! real {
    ($(#[$doc:meta])* $name:ident, $value:ident => $holds:expr, $expected:literal, { $($bounds:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(f64);

        impl $name {
            /// Of a number that is known to fit.
            ///
            /// # Panics
            /// When it does not. Meant for constants, where that fails to compile.
            pub const fn new($value: f64) -> Self {
                assert!($holds, "the number has to be within the bounds of its type");
                Self($value)
            }

            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl Visitor<'_> for Reader<$name> {
            type Value = $name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $expected.starts_with("a number") { f.write_str($expected) } else { write!(f, "a number, {}", $expected) }
            }

            fn visit_f64<E: de::Error>(self, $value: f64) -> Result<$name, E> {
                if $holds { Ok($name($value)) } else { Err(out_of_range($value, $expected)) }
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<$name, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<$name, E> {
                self.visit_f64(value as f64)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_f64(Reader::<$name>::new())
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "number", "format": "double", $($bounds)* })
            }
        }
    };
}

real! {
    /// A finite number above 0.
    Positive, value => value > 0.0 && value.is_finite(), "a number above 0", { "exclusiveMinimum": 0 }
}

real! {
    /// A finite number, 0 or above.
    NonNegative, value => value >= 0.0 && value.is_finite(), "0 or above", { "minimum": 0 }
}

real! {
    /// A share of a whole that is not nothing: above 0, at most 1.
    PositiveShare, value => value > 0.0 && value <= 1.0, "a number above 0, at most 1", { "exclusiveMinimum": 0, "maximum": 1 }
}

real! {
    /// A share of a whole, which may be nothing: 0 to 1.
    Share, value => value >= 0.0 && 1.0 - value >= 0.0, "a number from 0 to 1", { "minimum": 0, "maximum": 1 }
}

impl Default for NonNegative {
    fn default() -> Self {
        Self(0.0)
    }
}

/// A whole number, `LEAST` or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count<const LEAST: usize = 1>(usize);

impl<const LEAST: usize> Count<LEAST> {
    /// Of a number that is known to fit.
    ///
    /// # Panics
    /// When it does not. Meant for constants, where that fails to compile.
    pub const fn new(value: usize) -> Self {
        assert!(value >= LEAST, "the number has to be within the bounds of its type");
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl<const LEAST: usize> Visitor<'_> for Reader<Count<LEAST>> {
    type Value = Count<LEAST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number, {LEAST} or more")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count<LEAST>, E> {
        let fits = usize::try_from(value).ok().filter(|value| *value >= LEAST);
        fits.map(Count).ok_or_else(|| out_of_range(value, &format!("{LEAST} or more")))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Count<LEAST>, E> {
        u64::try_from(value)
            .map_or_else(|_| Err(out_of_range(value, &format!("{LEAST} or more"))), |v| self.visit_u64(v))
    }
}

impl<'de, const LEAST: usize> Deserialize<'de> for Count<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Reader::<Self>::new())
    }
}

impl<const LEAST: usize> JsonSchema for Count<LEAST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count{LEAST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "uint", "minimum": LEAST })
    }
}

/// Reads a number of type `T`.
struct Reader<T>(std::marker::PhantomData<T>);

impl<T> Reader<T> {
    fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it reads is asked")]
    struct Of {
        positive: Option<Positive>,
        non_negative: Option<NonNegative>,
        share: Option<PositiveShare>,
        count: Option<Count>,
        pair: Option<Count<2>>,
    }

    fn check(field: &str, value: serde_json::Value, wrong: Option<(&str, &str)>) {
        let read = crate::read_params::<Of>(json!({ field: value }), "test", None);
        let found =
            read.err().map(|errors| (errors[0].message.clone(), errors[0].expected.clone().unwrap_or_default()));
        assert_eq!(found, wrong.map(|(message, expected)| (message.to_owned(), expected.to_owned())));
    }

    #[test]
    fn what_is_out_of_range_is_refused_in_the_words_of_its_type() {
        check("positive", json!(1e-9), None);
        check("positive", json!(3), None);
        check("positive", json!(0), Some(("`positive` is 0", "a number above 0")));
        check("positive", json!(-1.5), Some(("`positive` is -1.5", "a number above 0")));
        check("positive", json!("x"), Some(("`positive` has the wrong type: the text \"x\"", "a number above 0")));
        check("non_negative", json!(0), None);
        check("non_negative", json!(-1), Some(("`non_negative` is -1", "0 or above")));
        check("non_negative", json!(true), Some(("`non_negative` has the wrong type: true", "a number, 0 or above")));
        check("share", json!(1), None);
        check("share", json!(1.01), Some(("`share` is 1.01", "a number above 0, at most 1")));
        check("count", json!(1), None);
        check("count", json!(0), Some(("`count` is 0", "1 or more")));
        check("count", json!(-7), Some(("`count` is -7", "1 or more")));
        check("count", json!(2.5), Some(("`count` has the wrong type: the number 2.5", "a whole number, 1 or more")));
        check(
            "count",
            json!(4e38),
            Some(("`count` has the wrong type: the number 4e+38", "a whole number, 1 or more")),
        );
        check("pair", json!(1), Some(("`pair` is 1", "2 or more")));
    }

    #[test]
    fn a_value_is_written_as_the_number_that_it_is() {
        assert_eq!(json!([Positive::new(0.5), NonNegative::default(), Count::<1>::new(3)]), json!([0.5, 0.0, 3]));
    }
}
