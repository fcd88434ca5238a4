//! Why a request was not carried out.

use std::fmt;

use overplane::Error;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Why a request was not carried out; nothing was changed.
#[derive(Debug)]
pub struct Refusal {
    kind: &'static str,
    message: String,
}

impl Refusal {
    /// The request makes no sense.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self { kind: "invalid", message: message.to_string() }
    }

    pub fn not_found(message: impl fmt::Display) -> Self {
        Self { kind: "not_found", message: message.to_string() }
    }

    /// Not now.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self { kind: "unavailable", message: message.to_string() }
    }

    /// What is sent in its place.
    pub fn to_json(&self) -> Value {
        json!({ "error": { "kind": self.kind, "message": self.message } })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Invalid { .. } => "invalid",
            Error::NotFound { .. } => "not_found",
            Error::Conflict { .. } => "conflict",
            Error::Limit { .. } => "limit",
            _ => "failed",
        };
        Self { kind, message: error.to_string() }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Usage(_) => "invalid",
            Failure::Refused(_) => "refused",
            _ => "failed",
        };
        Self { kind, message: failure.to_string() }
    }
}
