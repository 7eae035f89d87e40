//! What tokens are checked with.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};

/// One key and the one algorithm that its kind is bound to, so that a token can't choose another.
#[derive(Clone)]
pub struct Keys {
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a private key was given; the public key is wanted (`openssl pkey -in key.pem -pubout`)")]
    Private,
    #[error("a certificate was given; its public key is wanted (`openssl x509 -in cert.pem -noout -pubkey`)")]
    Certificate,
    #[error("not a public key in PEM form (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    #[error("an RSA key must have 2048 to 4096 bits")]
    RsaSize,
    #[error("neither an RSA, nor a P-256, nor an Ed25519 key")]
    Kind,
}

/// A PKCS#1 public key holds the modulus, an exponent of a few bytes, and some ten bytes of framing.
const RSA_DER_BYTES: std::ops::RangeInclusive<usize> = 2048 / 8 + 8..=4096 / 8 + 24;

impl Keys {
    /// HS256.
    pub fn secret(secret: &[u8]) -> Self {
        Self { algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) }
    }

    /// RS256, ES256 or EdDSA, as the key's kind demands.
    pub fn public_key(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        if pem.contains("BEGIN CERTIFICATE-----") {
            return Err(KeyError::Certificate);
        }
        if pem.matches("-----BEGIN ").count() != 1 || !pem.contains("PUBLIC KEY-----") {
            return Err(KeyError::NotPem);
        }
        let pem = pem.trim().as_bytes();
        let (algorithm, key) = DecodingKey::from_ec_pem(pem)
            .map(|key| (Algorithm::ES256, key))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
            .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| KeyError::Kind)?;
        let size = key.try_get_as_bytes().map_err(|_| KeyError::Kind)?.len();
        match algorithm {
            Algorithm::RS256 if !RSA_DER_BYTES.contains(&size) => return Err(KeyError::RsaSize),
            // jsonwebtoken slices 32 bytes off without looking.
            Algorithm::EdDSA if size != 32 => return Err(KeyError::Kind),
            _ => {}
        }
        // A point that is not on the curve is found only when a verifier is made.
        crypto::verify("", b"", &key, algorithm).map_err(|_| KeyError::Kind)?;
        Ok(Self { algorithm, key })
    }

    /// The name that a token's `alg` must have.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
            _ => "HS256",
        }
    }

    pub(super) fn accept(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.algorithm())
    }
}
