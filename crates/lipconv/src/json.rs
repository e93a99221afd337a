//! JSON from files of others, read strictly.
//!
//! JSON does not say what two members of one name mean; most readers let the last one count. A file could then show one
//! value to a person and another to a program. [`from_slice`] refuses such text wherever the two stand; types with
//! `deny_unknown_fields` refuse what they do not know.
//!
//! Guarantee: what is returned was written exactly once. Cost: one pass over the text and the names of the objects that
//! are open, before the text is read. Errors: serde_json's, with line and column.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Reads a value, no object of which names a member twice.
///
/// ```
/// let read = |text: &str| lipconv::json::from_slice::<Vec<u8>>(text.as_bytes());
/// assert_eq!(read("[1, 2]").unwrap(), [1, 2]);
///
/// let refused = lipconv::json::from_slice::<serde_json::Value>(br#"{"a": {"b": 1, "b": 2}}"#).unwrap_err();
/// assert!(refused.to_string().starts_with("`b` stands twice in one object"));
/// ```
///
/// # Errors
/// Text that is no JSON, names a member twice, or does not fit `T`.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    check_members(text)?;
    serde_json::from_slice(text)
}

/// Checks that the text is JSON, no object of which names a member twice.
///
/// # Errors
/// See [`from_slice`].
pub fn check_members(text: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Strict>(text).map(|Strict| ())
}

/// Any JSON value, read for the names of its members alone.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!(
                    "`{}` stands twice in one object",
                    name.escape_debug()
                )));
            }
            names.insert(name);
            map.next_value::<Strict>()?;
        }
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
        while list.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_stands_twice_is_refused_wherever_it_stands() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"[1, {"b": [], "a": 1, "b": null}]"#,
            r#"{"a": [{"b": {"c": 1, "c": 2}}]}"#,
            // the same name, written in two ways
            r#"{"a": 1, "\u0061": 2}"#,
        ] {
            let refused = check_members(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains("stands twice in one object"), "{text}: {refused}");
        }
    }

    #[test]
    fn members_of_different_objects_may_agree() {
        let text = r#"{"a": {"a": [true, -1, 1.5e300, "a", null]}, "b": [{"a": 1}, {"a": 2}]}"#;
        assert_eq!(from_slice::<serde_json::Value>(text.as_bytes()).unwrap()["b"][1]["a"], 2);
    }

    #[test]
    fn text_that_is_no_json_is_refused() {
        for text in ["", "{", "[1,]", "{\"a\": 1} 2", "NaN", &"[".repeat(1 << 20)] {
            assert!(check_members(text.as_bytes()).is_err());
        }
    }
}
