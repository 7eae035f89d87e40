//! Measures the cost of refusing a token relative to the cost of accepting a valid one. An attacker with invented tokens
//! must not be able to use more CPU time than a user with a valid token.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::prelude::*;
use criterion::{Criterion, criterion_group, criterion_main};
use taskcast::{
    auth::{ClaimNames, DEFAULT_MAX_TOKEN_BYTES, Grant, Key, TokenSigner, TokenVerifier, UnixTime},
    task::DefaultOrg,
};

const SECRET: &[u8] = b"a secret that only this benchmark knows";

fn verifier(key: Key) -> TokenVerifier {
    TokenVerifier {
        keys: key.into(),
        claims: ClaimNames::default(),
        issuer: None,
        audience: None,
        max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
        default_org: DefaultOrg::default(),
        revocations: Arc::default(),
    }
}

fn good() -> String {
    let grant = Grant {
        user: "alice".into(),
        org: Some("acme".into()),
        name: Some("Alice".into()),
        scope: None,
        ttl: Duration::from_secs(3600),
    };
    let signer = TokenSigner::new(SECRET, ClaimNames::default(), None, None);
    signer.sign(&grant, UnixTime::now()).expect("signs")
}

/// Invalid tokens, each with the name of its defect.
fn bad(good: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = good.split('.').collect();
    let with = |header: &str| format!("{}.{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), parts[1], parts[2]);
    let claims = |text: String| format!("{}.{}.{}", parts[0], BASE64_URL_SAFE_NO_PAD.encode(text), parts[2]);
    vec![
        ("empty", String::new()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("alg none", with(r#"{"alg":"none"}"#)),
        ("another alg", with(r#"{"alg":"RS256"}"#)),
        ("crit", with(r#"{"alg":"HS256","crit":["x"]}"#)),
        ("alg twice", with(r#"{"alg":"HS256","alg":"HS256"}"#)),
        ("an embedded key", with(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"c2VjcmV0"}}"#)),
        ("another signature", format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("8 KiB of header", with(&format!(r#"{{"alg":"HS256","x":"{}"}}"#, "x".repeat(5_500)))),
        ("8 KiB of names", with(&format!(r#"{{"alg":"HS256"{}}}"#, names(450)))),
        ("8 KiB of brackets", with(&"[".repeat(5_500))),
        ("8 KiB of payload", claims("x".repeat(5_500))),
        ("1 MiB", format!("{good}{}", "A".repeat(1024 * 1024))),
    ]
}

fn names(count: usize) -> String {
    (0..count).map(|n| format!(r#","{n}":{n}"#)).collect()
}

/// The time of the fastest round. This leaves out the load of other programs on the machine.
fn best_of(verifier: &TokenVerifier, token: &str) -> Duration {
    const ROUNDS: u32 = 50;
    const TIMES: u32 = 200;
    let round = || {
        let begun = Instant::now();
        for _ in 0..TIMES {
            let _ = black_box(verifier.verify(black_box(token), UnixTime::now()));
        }
        begun.elapsed() / TIMES
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or_default()
}

fn ratios(hs256: &TokenVerifier, good: &str) {
    let unit = best_of(hs256, good);
    println!("a good token: {unit:?}");
    for (name, token) in bad(good) {
        let cost = best_of(hs256, &token);
        println!("{:>8.2} times a good one: {name} ({cost:?})", cost.as_secs_f64() / unit.as_secs_f64());
    }
}

fn tokens(c: &mut Criterion) {
    let (hs256, token) = (verifier(Key::secret(SECRET)), good());
    hs256.verify(&token, UnixTime::now()).expect("valid");
    ratios(&hs256, &token);

    let mut group = c.benchmark_group("tokens");
    group.bench_function("good HS256", |b| b.iter(|| hs256.verify(black_box(&token), UnixTime::now())));
    for (name, pem) in [
        ("RS256", include_str!("../src/auth/testdata/rsa.pub.pem")),
        ("ES256", include_str!("../src/auth/testdata/p256.pub.pem")),
        ("EdDSA", include_str!("../src/auth/testdata/ed25519.pub.pem")),
    ] {
        let public = verifier(Key::public_key(pem).expect("a key"));
        // The most expensive refusal: everything is valid except the signature.
        let size = if name == "RS256" { 256 } else { 64 };
        let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(vec![1; size]);
        let forged = format!("{header}.{}.{signature}", token.split('.').nth(1).unwrap_or_default());
        group.bench_function(format!("forged {name}"), |b| {
            b.iter(|| public.verify(black_box(&forged), UnixTime::now()).expect_err("forged"));
        });
    }
    for (name, token) in bad(&token) {
        group.bench_function(name, |b| b.iter(|| hs256.verify(black_box(&token), UnixTime::now()).is_err()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = tokens
}
criterion_main!(benches);
