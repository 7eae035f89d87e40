//! Fetches a key set from the URL of a key server.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::{KeySet, KeySetError, UnusableKey};
use crate::{
    http_client::{HttpClient, MAX_BODY_BYTES, RequestError, TIMEOUT},
    metrics::KeyFetch,
};

/// The URL of a key set: `https`, or `http` to a loopback address. An attacker who could change the answer could sign
/// tokens for any user.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySetUrl(Uri);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it is not a URL such as https://id.example.com/.well-known/jwks.json")]
    Malformed,
    #[error(
        "http is for loopback addresses only, because anybody on the network path could replace the keys; use https"
    )]
    NotHttps,
    #[error("it must not contain a user or a password")]
    Credentials,
}

impl FromStr for KeySetUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(UrlError::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        match scheme {
            "https" => Ok(Self(uri)),
            "http" if is_loopback(authority.host()) => Ok(Self(uri)),
            "http" => Err(UrlError::NotHttps),
            _ => Err(UrlError::Malformed),
        }
    }
}

/// Shows only the host, because path or query may contain a secret.
impl fmt::Debug for KeySetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySetUrl({})", self.0.host().unwrap_or_default())
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The result of a successful fetch.
#[derive(Debug)]
pub struct Fetched {
    pub keys: KeySet,
    pub left_out: Vec<(usize, UnusableKey)>,
    /// How long the keys may be cached, if the server says so.
    pub max_age: Option<Duration>,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error(
        "it answers with a redirect ({0}), which is not followed: set JWT_JWKS_URL to the URL that it redirects to"
    )]
    Redirect(StatusCode),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("its answer is longer than {MAX_BODY_BYTES} bytes")]
    TooLong,
    #[error("its answer can't be used: {0}")]
    Unusable(#[from] KeySetError),
}

impl From<RequestError> for FetchError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Timeout(_) => Self::Timeout,
            RequestError::Unreachable(reason) => Self::Unreachable(reason),
            RequestError::TooLong => Self::TooLong,
        }
    }
}

impl FetchError {
    /// How this fetch counts in the metrics.
    pub fn outcome(&self) -> KeyFetch {
        match self {
            Self::Timeout | Self::Unreachable(_) => KeyFetch::Unreachable,
            Self::Redirect(_) | Self::Status(_) => KeyFetch::Status,
            Self::TooLong | Self::Unusable(_) => KeyFetch::Unusable,
        }
    }
}

/// Fetches keys from one URL.
#[derive(Clone)]
pub struct KeyServer {
    url: KeySetUrl,
    client: HttpClient,
}

impl KeyServer {
    pub fn new(url: KeySetUrl) -> Self {
        Self { url, client: HttpClient::default() }
    }

    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let request = Request::get(self.url.0.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Full::default())
            .map_err(|error| FetchError::Unreachable(error.to_string()))?;
        let answer = self.client.send(request).await?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(FetchError::Redirect(status)),
            status => return Err(FetchError::Status(status)),
        }
        let max_age = max_age(answer.headers());
        let (keys, left_out) = KeySet::parse(&answer.into_body()?)?;
        Ok(Fetched { keys, left_out, max_age })
    }
}

impl fmt::Debug for KeyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Reads `Cache-Control` (RFC 9111 §5.2.2). `no-store` and `no-cache` count as an age of zero.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase());
    let ages = directives.filter_map(|directive| match directive.split_once('=') {
        Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
        None if matches!(&*directive, "no-store" | "no-cache") => Some(Duration::ZERO),
        _ => None,
    });
    ages.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_addresses_are_accepted() {
        for good in [
            "https://id.example.com/keys",
            "HTTPS://id.example.com",
            "http://localhost:8080/keys?tenant=a",
            "http://127.0.0.1/keys",
            "http://127.9.9.9/keys",
            "http://[::1]:8080/keys",
        ] {
            good.parse::<KeySetUrl>().expect(good);
        }
        for (bad, error) in [
            ("", UrlError::Malformed),
            ("id.example.com/keys", UrlError::Malformed),
            ("/keys", UrlError::Malformed),
            ("file:///etc/keys", UrlError::Malformed),
            ("ftp://localhost/keys", UrlError::Malformed),
            ("https://a b/", UrlError::Malformed),
            ("https://user:password@id.example.com/keys", UrlError::Credentials),
            ("http://id.example.com/keys", UrlError::NotHttps),
            ("http://127.0.0.1.example.com/keys", UrlError::NotHttps),
            ("http://localhost.example.com/keys", UrlError::NotHttps),
            ("http://10.0.0.1/keys", UrlError::NotHttps),
        ] {
            assert_eq!(bad.parse::<KeySetUrl>().expect_err(bad), error, "{bad}");
        }
        let url: KeySetUrl = "https://id.example.com/hunter2?key=hunter2".parse().expect("a URL");
        assert!(!format!("{url:?} {:?}", KeyServer::new(url.clone())).contains("hunter2"));
    }

    #[test]
    fn the_age_is_read_from_cache_control() {
        let age = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CACHE_CONTROL, value.parse().expect("a value")));
            max_age(&values.collect()).map(|age| age.as_secs())
        };
        assert_eq!(age(&[]), None);
        assert_eq!(age(&["public"]), None);
        assert_eq!(age(&["public, Max-Age=3600, must-revalidate"]), Some(3600));
        assert_eq!(age(&["max-age=\"60\""]), Some(60));
        assert_eq!(age(&["max-age=60", "no-store"]), Some(0));
        assert_eq!(age(&["no-cache"]), Some(0));
        assert_eq!(age(&["max-age=-1"]), None);
        assert_eq!(age(&["max-age=99999999999999999999999"]), None);
        assert_eq!(age(&["s-maxage=5"]), None);
    }
}
