//! The keys of rows, one type for each table, so that a build's id never passes for an evaluation's.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($integer:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($integer);

        impl $name {
            /// Wraps a number that came from the database, a URL or a message.
            pub const fn new(number: $integer) -> Self {
                Self(number)
            }

            /// Gives the number.
            pub const fn get(self) -> $integer {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }

        impl ToSql for $name {
            fn to_sql(
                &self,
                kind: &Type,
                out: &mut BytesMut,
            ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
                self.0.to_sql(kind, out)
            }

            fn accepts(kind: &Type) -> bool {
                <$integer as ToSql>::accepts(kind)
            }

            to_sql_checked!();
        }

        impl<'a> FromSql<'a> for $name {
            fn from_sql(
                kind: &Type,
                raw: &'a [u8],
            ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                <$integer>::from_sql(kind, raw).map(Self)
            }

            fn accepts(kind: &Type) -> bool {
                <$integer as FromSql<'a>>::accepts(kind)
            }
        }
    };
}

id! {
    /// Names a row of `specifications`.
    SpecificationId(i32)
}
id! {
    /// Names a row of `evaluations`.
    EvaluationId(i64)
}
id! {
    /// Names a row of `builds`.
    BuildId(i64)
}
id! {
    /// Names a row of `derivations`.
    DerivationId(i64)
}
id! {
    /// Names a row of `attempts`.
    AttemptId(i64)
}
id! {
    /// Names a row of `workers`.
    WorkerId(i32)
}
id! {
    /// Names a row of `enrolment_tokens`.
    TokenId(i64)
}
id! {
    /// Names a row of `lanes`: the builds of one specification that the same workers can run.
    LaneId(i32)
}
id! {
    /// Names a row of `servers`.
    ServerId(i32)
}
id! {
    /// Names a row of `product_requests`.
    ProductRequestId(i64)
}
id! {
    /// Names a row of `build_products`.
    ProductId(i64)
}
id! {
    /// Names a row of `server_epochs`: one start of one server. Later starts have larger numbers.
    Epoch(i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_written() {
        let id: BuildId = "42".parse().unwrap();
        assert_eq!(id, BuildId::new(42));
        assert_eq!(id.to_string(), "42");
        assert_eq!(serde_json::to_string(&id).unwrap(), "42");
        assert!("4x".parse::<EvaluationId>().is_err());
    }
}
