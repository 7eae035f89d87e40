use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::super::tests::{NOW, SECRET, claims, verifier};
use super::{key_set::UnusableKey, *};
use crate::{
    auth::{AuthError, Identity, KeyError, Keys, TokenVerifier, UnixTime},
    metrics::Metrics,
};

const LONG: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// On-demand fetches and retries start after 20 ms. There are no regular fetches.
const EAGER: FetchTimes = FetchTimes {
    min_interval: NEVER,
    default_interval: NEVER,
    max_interval: NEVER,
    min_on_demand_interval: Duration::from_millis(20),
    min_retry: Duration::from_millis(20),
    max_retry: Duration::from_millis(20),
};

fn private(algorithm: Algorithm) -> EncodingKey {
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(include_bytes!("../testdata/rsa.pem")),
        Algorithm::ES256 => EncodingKey::from_ec_pem(include_bytes!("../testdata/p256.pem")),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(include_bytes!("../testdata/ed25519.pem")),
        _ => Ok(EncodingKey::from_secret(SECRET)),
    };
    key.expect("a key")
}

/// A JWK for a key set, with these members changed. A null removes the member.
fn jwk(algorithm: Algorithm, changes: Value) -> Value {
    let jwk = Jwk::from_encoding_key(&private(algorithm), algorithm).expect("a key");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    let members = jwk.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        members.insert(name.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    jwk
}

fn set(keys: impl IntoIterator<Item = Value>) -> String {
    json!({"keys": keys.into_iter().collect::<Vec<_>>()}).to_string()
}

fn token(algorithm: Algorithm, kid: Option<&str>) -> String {
    let mut claims = claims();
    claims["exp"] = (UnixTime::now().as_secs().max(NOW.as_secs()) + 60).into();
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, &private(algorithm)).expect("signs")
}

/// A key server that sends the configured answer and counts requests.
struct Server {
    url: String,
    answer: watch::Sender<String>,
    request_count: Arc<AtomicUsize>,
    /// Each answer needs one permit.
    answer_permits: Arc<Semaphore>,
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

impl Server {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let (answer, told) = watch::channel(answer);
        let answer_permits = Arc::new(Semaphore::new(1_000_000));
        let server = Self { url, answer, request_count: Arc::default(), answer_permits };
        let (request_count, permits) = (server.request_count.clone(), server.answer_permits.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                request_count.fetch_add(1, Ordering::SeqCst);
                // The server sends the answer that was configured when the request came.
                let answer = told.borrow().clone();
                permits.acquire().await.expect("open").forget();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        server
    }

    fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }

    async fn wait_for_requests(&self, times: usize) {
        while self.request_count() < times {
            tokio::task::yield_now().await;
        }
    }

    fn keys(&self, times: FetchTimes) -> Arc<FetchedKeys> {
        let server = KeyServer::new(self.url.parse().expect("a URL"));
        let keys = Arc::new(FetchedKeys::new(server, times));
        let fetching = keys.clone();
        tokio::spawn(async move { fetching.keep_fresh(&Metrics::default().keys).await });
        keys
    }

    fn verifier(&self, times: FetchTimes) -> Arc<TokenVerifier> {
        Arc::new(verifier(Keys::Fetched(self.keys(times))))
    }
}

fn is_no_key(result: &Result<Identity, AuthError>) -> bool {
    matches!(result, Err(AuthError::NoKey { .. }))
}

fn is_final(result: &Result<Identity, AuthError>) -> bool {
    matches!(result, Err(AuthError::Unauthorized(_)))
}

#[tokio::test]
async fn a_new_set_adds_and_removes_keys() {
    let server = Server::start(ok(&set([jwk(Algorithm::RS256, json!({"kid": "old"}))]))).await;
    let tokens = server.verifier(EAGER);
    let (old, new) = (token(Algorithm::RS256, Some("old")), token(Algorithm::ES256, Some("new")));
    tokens.admit(&old, LONG).await.expect("waits for the first fetch");
    server.answer.send_replace(ok(&set([jwk(Algorithm::ES256, json!({"kid": "new"}))])));
    tokens.admit(&new, LONG).await.expect("waits for the fetch that it causes");
    assert!(
        is_final(&tokens.admit(&old, LONG).await),
        "the key was removed, and a newer set has been fetched"
    );
    assert_eq!(server.request_count(), 3);
}

#[tokio::test]
async fn while_the_key_server_fails_known_keys_stay_valid_and_no_token_is_refused_permanently() {
    let good = ok(&set([jwk(Algorithm::RS256, json!({"kid": "a"}))]));
    let server = Server::start(good.clone()).await;
    let tokens = server.verifier(FetchTimes {
        min_interval: EAGER.min_retry,
        default_interval: EAGER.min_retry,
        max_interval: EAGER.min_retry,
        ..EAGER
    });
    let (known, unknown) = (token(Algorithm::RS256, Some("a")), token(Algorithm::ES256, Some("b")));
    tokens.admit(&known, LONG).await.expect("valid");
    for broken in [
        "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{".to_owned(),
        String::new(),
        ok(""),
        ok("{}"),
        ok("[]"),
        ok(r#"{"keys":[]}"#),
        ok(r#"{"keys":[{"kty":"RSA"}]}"#),
        ok(&set((0..65).map(|n| jwk(Algorithm::EdDSA, json!({"kid": n.to_string()}))))),
        ok(&format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000))),
    ] {
        server.answer.send_replace(broken.clone());
        let request_count = server.request_count();
        server.wait_for_requests(request_count + 2).await;
        assert!(is_no_key(&tokens.admit(&unknown, LONG).await), "{broken:.80}");
        tokens.admit(&known, LONG).await.expect("still good");
    }
    server.answer.send_replace(ok(&set([jwk(Algorithm::ES256, json!({"kid": "b"}))])));
    let waits_again = async { while tokens.admit(&unknown, LONG).await.is_err() {} };
    tokio::time::timeout(LONG, waits_again).await.expect("accepted once the server is back");
}

#[tokio::test]
async fn before_the_first_keys_a_token_is_not_refused_permanently() {
    let server = Server::start(String::new()).await;
    let tokens = server.verifier(EAGER);
    let good = token(Algorithm::RS256, Some("a"));
    assert!(is_no_key(&tokens.admit(&good, LONG).await) && !tokens.keys.are_known());
    let nonsense = tokens.admit(&token(Algorithm::HS256, None), LONG).await;
    assert!(is_final(&nonsense), "no fetched key can verify HS256");
    server.answer.send_replace(ok(&set([jwk(Algorithm::RS256, json!({"kid": "a"}))])));
    while tokens.admit(&good, LONG).await.is_err() {}
    assert!(tokens.keys.are_known());
}

#[tokio::test]
async fn invented_key_ids_cause_one_fetch_and_valid_tokens_are_still_accepted() {
    let server = Server::start(ok(&set([jwk(Algorithm::RS256, json!({"kid": "a"}))]))).await;
    let keys = server.keys(FetchTimes { min_on_demand_interval: NEVER, ..EAGER });
    let tokens = Arc::new(verifier(Keys::Fetched(keys.clone())));
    let known = token(Algorithm::RS256, Some("a"));
    tokens.admit(&known, LONG).await.expect("valid");
    assert!(
        is_final(&tokens.admit(&token(Algorithm::RS256, Some("made up")), LONG).await),
        "one fetch is made"
    );
    for n in 0..50 {
        let made_up = token(Algorithm::EdDSA, Some(&format!("made up {n}")));
        let result = tokens.admit(&made_up, LONG).await;
        let Err(AuthError::NoKey { retry_after }) = result else { panic!("{result:?}") };
        assert!(retry_after > NEVER / 2, "{retry_after:?}");
        tokens.admit(&known, Duration::ZERO).await.expect("valid");
    }
    assert_eq!(server.request_count(), 2);

    // Callers with enough patience wait, up to the limit.
    let mut waiting = tokio::task::JoinSet::new();
    let made_up = token(Algorithm::EdDSA, Some("made up"));
    for _ in 0..1_100 {
        let (tokens, made_up) = (tokens.clone(), made_up.clone());
        waiting.spawn(async move { tokens.admit(&made_up, NEVER * 2).await });
    }
    for _ in 0..1_100 - 1_024 {
        assert!(is_no_key(&waiting.join_next().await.expect("one").expect("no panic")));
    }
    assert_eq!(keys.waiting(), 1_024);
    tokens.admit(&known, Duration::ZERO).await.expect("valid");
    waiting.shutdown().await;
    assert_eq!((keys.waiting(), server.request_count()), (0, 2));
}

/// The race: the keys change while an answer is on its way. A key that is missing from this answer may be in the next
/// one.
#[tokio::test]
async fn only_a_key_set_requested_after_the_token_arrived_refuses_it_permanently() {
    let server = Server::start(ok(&set([jwk(Algorithm::RS256, json!({"kid": "a"}))]))).await;
    let tokens = server.verifier(EAGER);
    tokens.admit(&token(Algorithm::RS256, Some("a")), LONG).await.expect("valid");
    server.answer_permits.forget_permits(usize::MAX);
    let first = token(Algorithm::EdDSA, Some("made up"));
    let admitting = tokens.clone();
    let first = tokio::spawn(async move { admitting.admit(&first, LONG).await });
    server.wait_for_requests(2).await;
    server.answer.send_replace(ok(&set([jwk(Algorithm::ES256, json!({"kid": "b"}))])));
    let (admitting, late) = (tokens.clone(), token(Algorithm::ES256, Some("b")));
    let mut late = Running::start(async move { admitting.admit(&late, LONG).await });
    assert!(late.is_waiting().await);
    server.answer_permits.add_permits(1);
    assert!(is_final(&first.await.expect("no panic")), "the set was requested after the token came");
    server.answer_permits.add_permits(1);
    late.done().await.expect("the key is in the next set");
    assert_eq!(server.request_count(), 3);
}

/// A future that runs in the background.
struct Running(tokio::task::JoinHandle<Result<Identity, AuthError>>);

impl Running {
    fn start(future: impl Future<Output = Result<Identity, AuthError>> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    async fn is_waiting(&mut self) -> bool {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        !self.0.is_finished()
    }

    async fn done(self) -> Result<Identity, AuthError> {
        self.0.await.expect("no panic")
    }
}

fn parsed(keys: impl IntoIterator<Item = Value>) -> TokenVerifier {
    let (keys, _) = KeySet::parse(set(keys).as_bytes()).expect("a set");
    verifier(Keys::Fetched(Arc::new(FetchedKeys::with_keys(keys))))
}

#[test]
fn a_token_is_checked_only_with_the_keys_that_it_names() {
    let all = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let tokens = parsed(all.map(|algorithm| jwk(algorithm, json!({"kid": format!("{algorithm:?}")}))));
    for algorithm in all {
        for other in all {
            let result = tokens.verify(&token(algorithm, Some(&format!("{other:?}"))), NOW);
            assert!(
                if algorithm == other { result.is_ok() } else { is_final(&result) },
                "{algorithm:?} {other:?}"
            );
        }
        assert!(is_no_key(&tokens.verify(&token(algorithm, Some("rs256")), NOW)), "key ids are exact");
        tokens.verify(&token(algorithm, None), NOW).expect("one key fits");
    }
}

#[test]
fn a_token_without_a_key_id_needs_a_set_with_exactly_one_matching_key() {
    let anonymous = || jwk(Algorithm::ES256, json!({"kid": null}));
    // Another point of the curve: its generator.
    let other = |kid: Value| {
        jwk(
            Algorithm::ES256,
            json!({
                "kid": kid, "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
            }),
        )
    };
    let without_id = token(Algorithm::ES256, None);
    parsed([anonymous()]).verify(&without_id, NOW).expect("valid");
    assert!(is_final(&parsed([anonymous(), other(json!("b"))]).verify(&without_id, NOW)), "two fit");
    assert!(is_no_key(&parsed([other(json!(null))]).verify(&without_id, NOW)), "there may be a new one");
    assert!(
        is_final(&parsed([other(json!("b"))]).verify(&without_id, NOW)),
        "the key has an id and the token has none"
    );
    assert!(is_no_key(&parsed([jwk(Algorithm::RS256, json!({}))]).verify(&without_id, NOW)));
    let named = token(Algorithm::ES256, Some("b"));
    assert!(is_no_key(&parsed([anonymous()]).verify(&named, NOW)));
    let twice = [other(json!("b")), jwk(Algorithm::ES256, json!({"kid": "b"}))];
    parsed(twice).verify(&named, NOW).expect("both keys with that id are tried");
}

#[test]
fn an_unusable_key_is_left_out_and_the_others_are_used() {
    let rsa = |changes| jwk(Algorithm::RS256, changes);
    let ec = |changes| jwk(Algorithm::ES256, changes);
    let ed = |changes| jwk(Algorithm::EdDSA, changes);
    for good in [
        rsa(json!({"use": "sig"})),
        rsa(json!({"alg": null, "use": null, "key_ops": ["verify"], "x5c": ["?"], "x5t": 5})),
        ec(json!({"key_ops": ["sign", "verify"]})),
        ed(json!({"alg": null})),
    ] {
        assert_eq!(KeySet::parse(set([good]).as_bytes()).expect("a set").1, []);
    }
    let n = rsa(json!({}))["n"].as_str().expect("n").to_owned();
    for (bad, reason) in [
        (json!({"kty": "oct", "k": "c2VjcmV0"}), UnusableKey::Secret),
        (json!(7), UnusableKey::Malformed),
        (json!({}), UnusableKey::Malformed),
        (rsa(json!({"kid": 7})), UnusableKey::Malformed),
        (rsa(json!({"n": null})), UnusableKey::Malformed),
        (rsa(json!({"n": format!("{n}=")})), UnusableKey::Malformed),
        (rsa(json!({"d": "AQAB"})), UnusableKey::Private),
        (rsa(json!({"use": "enc"})), UnusableKey::Use),
        (rsa(json!({"key_ops": ["encrypt"]})), UnusableKey::Use),
        (rsa(json!({"key_ops": []})), UnusableKey::Use),
        (rsa(json!({"alg": "RS512"})), UnusableKey::Algorithm),
        (rsa(json!({"alg": "PS256"})), UnusableKey::Algorithm),
        (rsa(json!({"alg": "HS256"})), UnusableKey::Algorithm),
        (rsa(json!({"alg": "none"})), UnusableKey::Algorithm),
        (rsa(json!({"n": &n[..n.len() / 2 / 4 * 4]})), KeyError::RsaSize.into()),
        (rsa(json!({"n": format!("AAAA{}", &n[..n.len() / 2 / 4 * 4])})), KeyError::RsaSize.into()),
        (rsa(json!({"n": n.repeat(4)})), KeyError::RsaSize.into()),
        (rsa(json!({"n": ""})), KeyError::RsaSize.into()),
        (rsa(json!({"e": "AQ"})), KeyError::RsaExponent.into()),
        (rsa(json!({"e": "AAAB"})), KeyError::RsaExponent.into()),
        (rsa(json!({"e": "AQAA"})), KeyError::RsaExponent.into()),
        (rsa(json!({"e": ""})), KeyError::RsaExponent.into()),
        (rsa(json!({"e": "AQAAAAE"})), KeyError::RsaExponent.into()),
        (ec(json!({"crv": "P-384"})), KeyError::Kind.into()),
        (ec(json!({"kty": "RSA"})), KeyError::Kind.into()),
        (ec(json!({"x": ec(json!({}))["y"]})), KeyError::NotOnCurve.into()),
        (ec(json!({"x": "AAAA"})), UnusableKey::Malformed),
        (ed(json!({"crv": "X25519"})), KeyError::Kind.into()),
        (ed(json!({"x": "AAAA"})), UnusableKey::Malformed),
        (ed(json!({"x": "A".repeat(43)})), KeyError::SmallOrder.into()),
        (ed(json!({"x": format!("AQ{}", "A".repeat(41))})), KeyError::SmallOrder.into()),
        (ed(json!({"alg": "ES256"})), UnusableKey::Algorithm),
    ] {
        let (keys, left_out) =
            KeySet::parse(set([bad.clone(), ed(json!({}))]).as_bytes()).expect("one is good");
        assert_eq!((keys.len(), left_out), (1, vec![(0, reason)]), "{bad}");
        assert!(matches!(KeySet::parse(set([bad]).as_bytes()), Err(KeySetError::NoneUsable)));
    }
    let twice = r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","x":"AAAA"}"#;
    assert!(KeySet::parse(format!(r#"{{"keys":[{twice}]}}"#).as_bytes()).is_err());
}
