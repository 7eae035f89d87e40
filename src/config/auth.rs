//! Settings for tokens: keys, claims, issuer, audience and length.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    auth::{
        ClaimNames, FetchTimes, FetchedKeys, Key, KeyServer, KeySetUrl, Keys, TokenSigner, TokenVerifier,
    },
    task::DefaultOrg,
};

use super::{Secret, ServerConfig, StoreConfig, dev_secret, dev_secret::DevSecretError, reader::Reader};

#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub keys: KeySource,
    pub claims: ClaimNames,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// The longest token that is accepted.
    pub max_token_bytes: usize,
}

#[derive(Clone, Debug)]
pub enum KeySource {
    Secret(Secret),
    PublicKey(Key),
    Fetched(KeySetUrl),
    /// A secret in this file, for development only. It is generated if the file does not exist.
    Generated(PathBuf),
}

/// The verifier and the signer of tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub verifier: TokenVerifier,
    /// `None` means that only public keys are known, so that another server signs the tokens.
    pub signer: Option<TokenSigner>,
}

/// The range of `MAX_TOKEN_BYTES`. An ordinary token needs at least the lower limit. Above the upper limit,
/// unauthenticated connections would cost too much.
const TOKEN_BYTES_RANGE: RangeInclusive<usize> = 1024..=65_536;
/// RFC 7518 §3.2.
pub const MIN_SECRET_BYTES: usize = 32;

impl AuthConfig {
    pub(super) fn read(reader: &mut Reader<'_>, server: &ServerConfig, store: &StoreConfig) -> Self {
        Self {
            keys: read_keys(reader, server, &store.data_dir),
            claims: ClaimNames {
                user: read_claim(reader, "JWT_USER_CLAIM"),
                org: read_claim(reader, "JWT_ORG_CLAIM"),
                name: read_claim(reader, "JWT_NAME_CLAIM"),
            },
            issuer: reader.text("JWT_ISSUER").map(str::to_owned),
            audience: reader.text("JWT_AUDIENCE").map(str::to_owned),
            max_token_bytes: reader.number("MAX_TOKEN_BYTES", TOKEN_BYTES_RANGE).unwrap_or_default(),
        }
    }

    /// Builds the verifier and the signer. If the key is the development secret, this function reads it or generates
    /// it.
    pub(super) fn open(&self, default_org: &DefaultOrg) -> Result<Tokens, DevSecretError> {
        let (keys, secret) = match &self.keys {
            KeySource::Secret(secret) => (hs256(secret), Some(secret.clone())),
            KeySource::PublicKey(key) => (key.clone().into(), None),
            KeySource::Fetched(url) => {
                let keys = FetchedKeys::new(KeyServer::new(url.clone()), FetchTimes::default());
                (Keys::Fetched(Arc::new(keys)), None)
            }
            KeySource::Generated(path) => {
                let secret = dev_secret::read_or_make(path)?;
                (hs256(&secret), Some(secret))
            }
        };
        let signer = secret.map(|secret| {
            let (claims, secret) = (self.claims.clone(), secret.expose().as_bytes());
            TokenSigner::new(secret, claims, self.issuer.clone(), self.audience.clone())
        });
        let verifier = TokenVerifier {
            keys,
            claims: self.claims.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            max_token_bytes: self.max_token_bytes,
            default_org: default_org.clone(),
            revocations: Arc::default(),
        };
        Ok(Tokens { verifier, signer })
    }
}

fn hs256(secret: &Secret) -> Keys {
    Key::secret(secret.expose().as_bytes()).into()
}

const KEY_SETTINGS: [&str; 3] = ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL"];

fn read_keys(reader: &mut Reader<'_>, server: &ServerConfig, data_dir: &Path) -> KeySource {
    let dev = reader.bool("TASKCAST_DEV");
    let generated = KeySource::Generated(data_dir.join("dev-secret"));
    let [secret, public, jwks] = KEY_SETTINGS.map(|kind| reader.raw(kind));
    let given: Vec<&str> = KEY_SETTINGS
        .into_iter()
        .zip([secret, public, jwks])
        .filter_map(|(kind, text)| text.map(|_| kind))
        .collect();
    if let [first, others @ ..] = &*given
        && !others.is_empty()
    {
        for other in others {
            reader.problem(
                other,
                format!("must be unset if {first} is set: exactly one kind of key may be configured"),
            );
        }
        return generated;
    }
    if let Some(secret) = secret {
        if secret.len() < MIN_SECRET_BYTES {
            reader.warn(
                "JWT_SECRET is shorter than 32 bytes and can be guessed from one token; make a longer one",
            );
        }
        return KeySource::Secret(Secret::new(secret));
    }
    if let Some(text) = public {
        return match read_public_key(text.trim()) {
            Ok(key) => KeySource::PublicKey(key),
            Err(reason) => {
                reader.problem(
                    "JWT_PUBLIC_KEY",
                    format!("must be an RSA, P-256 or Ed25519 public key in PEM form, or @ and a file with one: {reason}"),
                );
                generated
            }
        };
    }
    if let Some(text) = jwks {
        return match text.trim().parse() {
            Ok(url) => KeySource::Fetched(url),
            Err(reason) => {
                reader.problem("JWT_JWKS_URL", format!("must be the URL of a key set: {reason}"));
                generated
            }
        };
    }
    if !dev && !server.host.to_canonical().is_loopback() {
        reader.problem(
            "JWT_SECRET",
            "this, JWT_PUBLIC_KEY or JWT_JWKS_URL must be set; for development a secret is generated where HOST is a \
             loopback address or TASKCAST_DEV is 1",
        );
    }
    generated
}

/// Line ends may be written as `\n`, which is usual where environment variables are edited in a form.
fn read_public_key(text: &str) -> Result<Key, String> {
    let pem = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("the file can't be read ({})", error.kind()))?,
        None => text.replace("\\n", "\n"),
    };
    Key::public_key(&pem).map_err(|error| error.to_string())
}

fn read_claim(reader: &mut Reader<'_>, name: &'static str) -> String {
    reader.text(name).unwrap_or_default().to_owned()
}
