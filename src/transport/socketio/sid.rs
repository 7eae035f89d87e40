//! The ids of Engine.IO connections.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// An Engine.IO connection's id. It lets its holder act as the polling client, so it is sent to that client only and never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; 15]);

impl Sid {
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl FromStr for Sid {
    type Err = base64::DecodeSliceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 15];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes)? {
            15 => Ok(Self(bytes)),
            short => Err(base64::DecodeError::InvalidLength(short).into()),
        }
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_not_shown() {
        let id = Sid::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!((id.to_string().len(), format!("{id:?}")), (20, "Sid(…)".to_owned()));
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAA=", "é"]
        {
            assert!(text.parse::<Sid>().is_err(), "{text}");
        }
    }
}
