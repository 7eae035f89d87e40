//! A key that verifies tokens, and the checks that a key must pass.

use std::{fmt, ops::RangeInclusive};

use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use pkcs1::RsaPublicKey;

/// A key and the one algorithm of its kind. The key fixes the algorithm, so that a token can't choose another.
#[derive(Clone)]
pub struct Key {
    algorithm: KeyAlgorithm,
    key: DecodingKey,
}

/// The algorithms that tokens may be signed with.
#[derive(Clone, Copy)]
enum KeyAlgorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl From<KeyAlgorithm> for Algorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Hs256 => Self::HS256,
            KeyAlgorithm::Rs256 => Self::RS256,
            KeyAlgorithm::Es256 => Self::ES256,
            KeyAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("this is a private key; give its public key (made by `openssl pkey -in key.pem -pubout`)")]
    Private,
    #[error(
        "this is a certificate; give its public key (made by `openssl x509 -in cert.pem -noout -pubkey`)"
    )]
    Certificate,
    #[error("not a public key in PEM form (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    #[error("an RSA key must have 2048 to 4096 bits")]
    RsaSize,
    #[error("an RSA key's exponent must be odd, and from 3 to 4294967295")]
    RsaExponent,
    #[error("an RSA key's modulus must be odd")]
    RsaModulus,
    #[error(
        "the Ed25519 key is a point of small order: everybody can sign for it; make a new key pair (`openssl genpkey -algorithm ed25519`)"
    )]
    SmallOrder,
    #[error("the Ed25519 key is not encoded as RFC 8032 requires")]
    NotCanonical,
    #[error("the key's point is not on the curve")]
    NotOnCurve,
    #[error("neither an RSA, nor a P-256, nor an Ed25519 key")]
    Kind,
}

const RSA_BITS: RangeInclusive<usize> = 2048..=4096;
/// This byte precedes the two coordinates of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

impl Key {
    /// HS256.
    pub fn secret(secret: &[u8]) -> Self {
        Self { algorithm: KeyAlgorithm::Hs256, key: DecodingKey::from_secret(secret) }
    }

    /// RS256, ES256 or EdDSA. The kind of the key decides which.
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
        // A key in PEM form passes the same checks as one from a key server.
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            // The library accepts keys of every curve here. This refuses other curves, because their points are not on P-256.
            return Self { algorithm: KeyAlgorithm::Es256, key }.checked().map_err(|_| KeyError::Kind);
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            let bytes = key.try_get_as_bytes().map_err(|_| KeyError::Kind)?;
            return Self::ed25519(bytes.try_into().map_err(|_| KeyError::Kind)?);
        }
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::Kind)?;
        let bytes = key.try_get_as_bytes().map_err(|_| KeyError::Kind)?;
        let numbers = RsaPublicKey::try_from(bytes).map_err(|_| KeyError::Kind)?;
        Self::rsa(numbers.modulus.as_bytes(), numbers.public_exponent.as_bytes())
    }

    /// RS256. Both numbers are big-endian.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize);
        }
        // With the exponent 1, everybody can sign.
        if exponent.len() > 4 || exponent == [1] || exponent.last().is_none_or(|last| last % 2 == 0) {
            return Err(KeyError::RsaExponent);
        }
        // A modulus is the product of two odd primes.
        if modulus.last().is_none_or(|last| last % 2 == 0) {
            return Err(KeyError::RsaModulus);
        }
        let key = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Self { algorithm: KeyAlgorithm::Rs256, key }.checked()
    }

    /// ES256.
    pub(super) fn p256(x: &[u8; 32], y: &[u8; 32]) -> Result<Self, KeyError> {
        let point = [&[UNCOMPRESSED][..], x, y].concat();
        Self { algorithm: KeyAlgorithm::Es256, key: DecodingKey::from_ec_der(&point) }.checked()
    }

    /// EdDSA. With a point of small order, one signature is valid for many messages, and anybody can compute it.
    pub(super) fn ed25519(x: &[u8; 32]) -> Result<Self, KeyError> {
        let point = VerifyingKey::from_bytes(x).map_err(|_| KeyError::NotOnCurve)?;
        if point.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        if point.to_edwards().compress().as_bytes() != x {
            return Err(KeyError::NotCanonical);
        }
        Self { algorithm: KeyAlgorithm::EdDsa, key: DecodingKey::from_ed_der(x) }.checked()
    }

    /// Verifies an empty message: only a verification makes the library check that the point is on the curve.
    fn checked(self) -> Result<Self, KeyError> {
        crypto::verify("", b"", &self.key, self.algorithm.into()).map_err(|_| KeyError::NotOnCurve)?;
        Ok(self)
    }

    /// The value that a token's `alg` must have.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            KeyAlgorithm::Hs256 => "HS256",
            KeyAlgorithm::Rs256 => "RS256",
            KeyAlgorithm::Es256 => "ES256",
            KeyAlgorithm::EdDsa => "EdDSA",
        }
    }

    pub(super) fn accepts(&self, message: &[u8], signature: &str) -> bool {
        crypto::verify(signature, message, &self.key, self.algorithm.into()).unwrap_or(false)
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm())
    }
}
