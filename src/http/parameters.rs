//! Reads the query parameters of a request.

use std::ops::RangeInclusive;

use axum::extract::{Query, rejection::QueryRejection};

use super::ApiError;

pub(super) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Returns the parameters with these names. Empty parameters count as absent. Parameters with other names are ignored.
pub(super) fn known_parameters(
    parameters: Parameters,
    names: &[&str],
) -> Result<Vec<(String, String)>, ApiError> {
    let Query(mut parameters) =
        parameters.map_err(|_| ApiError::Invalid("the query can't be read".to_owned()))?;
    parameters.retain(|(name, _)| names.contains(&&**name));
    for name in names {
        if parameters.iter().filter(|(other, _)| other == name).count() > 1 {
            return Err(ApiError::Invalid(format!("{name} must be given once")));
        }
    }
    parameters.retain(|(_, value)| !value.is_empty());
    Ok(parameters)
}

/// Parses the parameter `limit`.
pub(super) fn limit(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, ApiError> {
    match text.parse() {
        Ok(limit) if allowed.contains(&limit) => Ok(limit),
        _ => {
            let (min, max) = allowed.into_inner();
            Err(ApiError::Invalid(format!("limit must be a whole number from {min} to {max}")))
        }
    }
}
