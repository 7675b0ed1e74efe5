//! A condition on what a model knows of a fact: `p_true > p_new`, `p_true >= 0.1 and p_new < 0.01`.

use std::fmt;

/// A side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// The probability of the true target after the rewrite prompt.
    True,
    /// That of the new one.
    New,
    /// A number.
    Number(f64),
}

/// How two sides compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// Comparisons that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Vec<(Term, Relation, Term)>);

/// What a condition is, for whoever wrote something else.
pub const EXPECTED: &str =
    "comparisons of p_true, p_new and numbers by >, >=, < or <=, joined by `and`, such as p_true > p_new";

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let relations =
                [(">=", Relation::AtLeast), ("<=", Relation::AtMost), (">", Relation::Above), ("<", Relation::Below)];
            let (left, relation, right) = relations
                .into_iter()
                .find_map(|(sign, relation)| {
                    let (left, right) = part.split_once(sign)?;
                    Some((left, relation, right))
                })
                .ok_or_else(|| format!("{:?} compares nothing", part.trim()))?;
            Ok((term(left)?, relation, term(right)?))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let parts: Result<Vec<_>, String> =
            words.split(|word| *word == "and").map(|part| one(&part.join(" "))).collect();
        parts.map(Self)
    }

    /// Whether it says something of the true target.
    pub fn needs_true(&self) -> bool {
        self.0.iter().any(|(left, _, right)| [left, right].contains(&&Term::True))
    }

    /// Whether it says something of the new target.
    pub fn needs_new(&self) -> bool {
        self.0.iter().any(|(left, _, right)| [left, right].contains(&&Term::New))
    }

    /// Whether it holds of these probabilities.
    pub fn holds(&self, p_true: f64, p_new: f64) -> bool {
        let value = |term: Term| match term {
            Term::True => p_true,
            Term::New => p_new,
            Term::Number(number) => number,
        };
        self.0.iter().all(|(left, relation, right)| {
            let (left, right) = (value(*left), value(*right));
            match relation {
                Relation::Above => left > right,
                Relation::AtLeast => left >= right,
                Relation::Below => left < right,
                Relation::AtMost => left <= right,
            }
        })
    }
}

fn term(text: &str) -> Result<Term, String> {
    match text.trim() {
        "p_true" => Ok(Term::True),
        "p_new" => Ok(Term::New),
        other => match other.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Term::Number(number)),
            _ => Err(format!("{other:?} is neither p_true, p_new nor a number")),
        },
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = |term: &Term| match term {
            Term::True => "p_true".to_owned(),
            Term::New => "p_new".to_owned(),
            Term::Number(number) => number.to_string(),
        };
        for (at, (left, relation, right)) in self.0.iter().enumerate() {
            let sign = match relation {
                Relation::Above => ">",
                Relation::AtLeast => ">=",
                Relation::Below => "<",
                Relation::AtMost => "<=",
            };
            let and = if at == 0 { "" } else { " and " };
            write!(f, "{and}{} {sign} {}", term(left), term(right))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_hold() {
        let read = |text: &str| Condition::parse(text).unwrap();
        let knows = read("p_true>p_new and  p_true >= 0.1");
        assert_eq!(knows.to_string(), "p_true > p_new and p_true >= 0.1");
        assert!(knows.holds(0.1, 0.05) && !knows.holds(0.1, 0.1) && !knows.holds(0.09, 0.0));
        assert!(read("0.5 <= p_new").holds(0.0, 0.5) && !read("p_new < 0.5").holds(0.0, 0.5));
        assert!(knows.needs_true() && knows.needs_new() && !read("p_new < 1").needs_true());
        for wrong in
            ["", "p_true", "p_true > ", "p_true > q", "p_true > p_new and", "p_true > p_new or 1 > 0", "p_true > nan"]
        {
            assert!(Condition::parse(wrong).is_err(), "{wrong}");
        }
    }
}
