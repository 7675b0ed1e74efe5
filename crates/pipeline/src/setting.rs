//! Values that code gives to parameters.

use serde_json::Value;

/// A value for a parameter. A number that is not finite is kept as what it is, since JSON would make `null` of it: the parameter would be
/// left out without a word.
#[derive(Clone, Debug)]
pub struct Setting(pub(crate) Result<Value, f64>);

macro_rules! as_json {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Setting {
            fn from(value: $kind) -> Self {
                Self(Ok(value.into()))
            }
        })*
    };
}

as_json!(Value, bool, &str, String, i32, i64, u32, u64, usize);

impl From<f64> for Setting {
    fn from(value: f64) -> Self {
        Self(if value.is_finite() { Ok(value.into()) } else { Err(value) })
    }
}

/// `None` leaves the parameter out.
impl<T: Into<Self>> From<Option<T>> for Setting {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self(Ok(Value::Null)), Into::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Setting {
    fn from(values: Vec<T>) -> Self {
        Self(values.into_iter().map(|value| value.into().0).collect::<Result<Vec<_>, _>>().map(Value::from))
    }
}

impl<T: Clone + Into<Self>> From<&[T]> for Setting {
    fn from(values: &[T]) -> Self {
        values.to_vec().into()
    }
}
