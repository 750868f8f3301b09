//! How urgent things are.

use std::fmt;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A number is not a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("priority {number} is not between 0 (the most urgent) and {largest}")]
pub struct InvalidPriority {
    /// The number.
    pub number: i64,
    /// The largest allowed.
    pub largest: u8,
}

macro_rules! priority {
    ($(#[$doc:meta])* $name:ident <= $largest:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name(u8);

        impl $name {
            /// The most urgent.
            pub const MOST_URGENT: Self = Self(0);
            /// The least urgent.
            pub const LEAST_URGENT: Self = Self($largest);

            /// Gives the number.
            pub const fn get(self) -> u8 {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::LEAST_URGENT
            }
        }

        impl TryFrom<i64> for $name {
            type Error = InvalidPriority;

            fn try_from(number: i64) -> Result<Self, InvalidPriority> {
                u8::try_from(number)
                    .ok()
                    .filter(|small| *small <= $largest)
                    .map(Self)
                    .ok_or(InvalidPriority { number, largest: $largest })
            }
        }

        impl From<$name> for i64 {
            fn from(priority: $name) -> Self {
                priority.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl ToSql for $name {
            fn to_sql(
                &self,
                kind: &Type,
                out: &mut BytesMut,
            ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
                i16::from(self.0).to_sql(kind, out)
            }

            fn accepts(kind: &Type) -> bool {
                <i16 as ToSql>::accepts(kind)
            }

            to_sql_checked!();
        }

        impl<'a> FromSql<'a> for $name {
            fn from_sql(
                kind: &Type,
                raw: &'a [u8],
            ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                Ok(Self::try_from(i64::from(i16::from_sql(kind, raw)?))?)
            }

            fn accepts(kind: &Type) -> bool {
                <i16 as FromSql<'a>>::accepts(kind)
            }
        }
    };
}

priority! {
    /// How urgent a specification is, or a job within one: 0, the most urgent, to 9.
    Level <= 9
}

priority! {
    /// How urgent a build is: 0, the most urgent, to 99.
    Priority <= 99
}

impl Priority {
    /// Gives the priority of a job's build: the specification decides, then the job.
    pub const fn of(specification: Level, job: Level) -> Self {
        Self(10 * specification.0 + job.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_decides_before_the_job() {
        let level = |number| Level::try_from(number).unwrap();
        assert_eq!(Priority::of(level(3), level(7)).get(), 37);
        assert!(Priority::of(level(2), level(9)) < Priority::of(level(3), level(0)));
        assert_eq!(Priority::of(Level::default(), Level::default()), Priority::LEAST_URGENT);
        assert!(Level::try_from(10).is_err() && Level::try_from(-1).is_err());
        assert!(serde_json::from_str::<Level>("10").is_err());
    }
}
