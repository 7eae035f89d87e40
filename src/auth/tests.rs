use std::time::Duration;

use base64::prelude::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::task::{DefaultOrg, OrgId, UserId};

pub(super) const SECRET: &[u8] = b"a secret that only this test knows";
pub(super) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const RSA_PUBLIC: &str = include_str!("testdata/rsa.pub.pem");

pub(super) fn verifier(keys: impl Into<Keys>) -> TokenVerifier {
    TokenVerifier {
        keys: keys.into(),
        claims: ClaimNames::default(),
        issuer: None,
        audience: None,
        max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
        default_org: DefaultOrg::default(),
        revocations: std::sync::Arc::default(),
    }
}

fn hs256() -> TokenVerifier {
    verifier(Key::secret(SECRET))
}

pub(super) fn claims() -> Value {
    json!({"sub": "alice", "orgId": "acme", "name": "Alice", "exp": NOW.as_secs() + 60})
}

/// `claims()` with these changes. A null removes the claim.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET))
        .expect("signs")
}

/// A token with any header and payload, and a correct HS256 signature.
fn sign_raw(header: &str, payload: &[u8], secret: &[u8]) -> String {
    let message =
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signs");
    format!("{message}.{signature}")
}

fn verify(claims: &Value) -> Result<Identity, AuthError> {
    hs256().verify(&sign(claims), NOW)
}

#[track_caller]
fn assert_unauthorized(result: Result<Identity, AuthError>) -> &'static str {
    match result {
        Err(error @ AuthError::Unauthorized(reason)) => {
            assert_eq!(error.code(), "unauthorized");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_algorithm_makes_the_round_trip() {
    let rsa = EncodingKey::from_rsa_pem(include_bytes!("testdata/rsa.pem")).expect("a key");
    let ec = EncodingKey::from_ec_pem(include_bytes!("testdata/p256.pem")).expect("a key");
    let ed = EncodingKey::from_ed_pem(include_bytes!("testdata/ed25519.pem")).expect("a key");
    let public = |pem| Key::public_key(pem).expect("a key");
    let keys = [
        ("HS256", Algorithm::HS256, EncodingKey::from_secret(SECRET), Key::secret(SECRET)),
        ("RS256", Algorithm::RS256, rsa.clone(), public(RSA_PUBLIC)),
        ("RS256", Algorithm::RS256, rsa, public(include_str!("testdata/rsa.pkcs1.pub.pem"))),
        ("ES256", Algorithm::ES256, ec, public(include_str!("testdata/p256.pub.pem"))),
        ("EdDSA", Algorithm::EdDSA, ed, public(include_str!("testdata/ed25519.pub.pem"))),
    ];
    for (name, algorithm, private, public) in &keys {
        assert_eq!(public.algorithm(), *name);
        let token = jsonwebtoken::encode(&Header::new(*algorithm), &claims(), private).expect("signs");
        let identity = verifier(public.clone()).verify(&token, NOW).expect(name);
        assert_eq!(identity.viewer.user.as_str(), "alice");
        for (_, other, _, key) in keys.iter().filter(|(_, other, _, _)| other != algorithm) {
            let result = verifier(key.clone()).verify(&token, NOW);
            assert!(assert_unauthorized(result).contains("alg"), "{name} by {other:?}");
        }
    }
}

#[test]
fn a_public_key_is_not_accepted_as_an_hmac_secret() {
    let verifier = verifier(Key::public_key(RSA_PUBLIC).expect("a key"));
    let payload = claims().to_string();
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"RS256"}"#, r#"{"alg":"none"}"#] {
        let token = sign_raw(header, payload.as_bytes(), RSA_PUBLIC.as_bytes());
        assert_unauthorized(verifier.verify(&token, NOW));
    }
}

#[test]
fn only_the_keys_own_algorithm_is_accepted() {
    let payload = claims().to_string();
    let accepted = sign_raw(r#"{"alg":"HS256","kid":"x","typ":"at+jwt"}"#, payload.as_bytes(), SECRET);
    hs256().verify(&accepted, NOW).expect("valid");
    for typ in ["JWT", "jwt", "at+JWT", "application/at+jwt"] {
        let token = sign_raw(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), payload.as_bytes(), SECRET);
        hs256().verify(&token, NOW).expect(typ);
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":null}"#,
        r#"{}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","\u0061lg":"HS256"}"#,
        r#"{"alg":"HS256","x":1,"x":1}"#,
        r#"{"alg":"HS256","kid":{}}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":"JOSE+JSON"}"#,
        r#"{"alg":"HS256","typ":["JWT"]}"#,
        r#"["HS256"]"#,
        r#"{"alg":"HS256""#,
    ] {
        assert_unauthorized(hs256().verify(&sign_raw(header, payload.as_bytes(), SECRET), NOW));
    }
    let unsigned = accepted.rsplit_once('.').expect("three parts").0;
    assert_unauthorized(hs256().verify(&format!("{unsigned}."), NOW));
    assert_unauthorized(verifier(Key::secret(b"another secret")).verify(&accepted, NOW));
}

#[test]
fn a_malformed_token_is_refused() {
    let token = sign(&claims());
    hs256().verify(&token, NOW).expect("valid");
    let parts: Vec<&str> = token.split('.').collect();
    let long = format!("{token}{}", "A".repeat(1024 * 1024));
    for wrong in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "\0".into(),
        "é.é.é".into(),
        parts[0].into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{}.{}.{}.{}", parts[0], parts[1], parts[1], parts[2]),
        format!("{token}="),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!(" {token}"),
        format!("{token}\n"),
        format!("Bearer {token}"),
    ] {
        assert_unauthorized(hs256().verify(&wrong, NOW));
    }
    assert!(matches!(hs256().verify(&long, NOW), Err(AuthError::TooLong { .. })));
    let twice = format!(r#"{{"sub":"alice","exp":{0},"exp":{0}}}"#, NOW.as_secs() + 60);
    let inside = r#"{"sub":"alice","exp":1800000060,"user":[{"x":{"id":1,"id":2}}]}"#;
    for payload in [&b"[]"[..], b"\"x\"", b"{", b"\xff\xfe", b"", twice.as_bytes(), inside.as_bytes()] {
        assert_unauthorized(hs256().verify(&sign_raw(r#"{"alg":"HS256"}"#, payload, SECRET), NOW));
    }
}

#[test]
fn a_token_may_be_as_long_as_is_configured_and_no_longer() {
    let length = |padding: usize| sign(&with(json!({"padding": "x".repeat(padding)})));
    for max in [1024, DEFAULT_MAX_TOKEN_BYTES, 64 * 1024] {
        let verifier = TokenVerifier { max_token_bytes: max, ..hs256() };
        let fits = (max / 2..max * 3 / 4).rev().map(length).find(|token| token.len() <= max);
        let fits = fits.expect("some length fits");
        assert!(fits.len() > max - 4);
        verifier.verify(&fits, NOW).expect("valid");
        let exact = TokenVerifier { max_token_bytes: fits.len(), ..hs256() };
        exact.verify(&fits, NOW).expect("valid");
        let shorter = TokenVerifier { max_token_bytes: fits.len() - 1, ..hs256() };
        let error = shorter.verify(&fits, NOW).expect_err("too long");
        assert_eq!(error, AuthError::TooLong { bytes: fits.len(), max: fits.len() - 1 });
        assert_eq!((error.code(), error.is_temporary()), ("unauthorized", false));
        assert!(error.to_string().contains(&format!("{} bytes", fits.len())), "{error}");
        assert!(error.to_string().contains("MAX_TOKEN_BYTES"), "{error}");
    }
}

#[test]
fn exp_is_required_and_has_no_leeway() {
    let now = NOW.as_secs();
    let expiring = |exp: Value| verify(&with(json!({ "exp": exp })));
    for past in [
        json!(now),
        json!(now - 1),
        json!(0),
        json!(-1),
        json!(now as f64),
        json!(-1e300),
        json!(-0.0),
        json!(i64::MIN),
    ] {
        assert_eq!(expiring(past.clone()), Err(AuthError::Expired), "{past}");
    }
    assert_eq!(AuthError::Expired.code(), "token_expired");

    assert_eq!(expiring(json!(now + 1)).expect("valid").expires_at, UnixTime::from_secs(now + 1));
    let last = UnixTime::MAX.as_secs() - 1;
    assert_eq!(expiring(json!(last)).expect("valid").expires_at, UnixTime::from_secs(last));
    for far in [
        json!(last + 1),
        json!((now + 60) * 1000),
        json!(u64::MAX),
        json!(1e300),
        json!((now as f64 + 60.5) * 1000.0),
    ] {
        assert!(assert_unauthorized(expiring(far)).contains("milliseconds"));
    }

    for wrong in [json!("1900000000"), json!("NaN"), json!(true), json!([now + 60]), json!({}), Value::Null] {
        assert_unauthorized(expiring(wrong));
    }
    for raw in
        ["1e999", "-1e999", "NaN", "Infinity", "0x7fffffff", "+1900000000", "01900000000", "1900000000."]
    {
        assert_unauthorized(raw_exp(raw));
    }
    assert_unauthorized(raw_exp("null"));
}

/// A token whose `exp` is this JSON text.
fn raw_exp(exp: &str) -> Result<Identity, AuthError> {
    let payload = format!(r#"{{"sub":"alice","exp":{exp}}}"#);
    hs256().verify(&sign_raw(r#"{"alg":"HS256"}"#, payload.as_bytes(), SECRET), NOW)
}

#[test]
fn exp_may_have_a_fraction_or_an_exponent_and_is_never_rounded_up() {
    for (exp, millis) in [
        ("1800000060.5", 1_800_000_060_500),
        ("1800000060.0", 1_800_000_060_000),
        ("1800000060.9999", 1_800_000_060_999),
        ("1800000060.0009", 1_800_000_060_000),
        ("1.80000006e9", 1_800_000_060_000),
        ("18000000.605e+2", 1_800_000_060_500),
        ("1800000060500E-3", 1_800_000_060_500),
        // The nearest double is a little smaller than this number.
        ("1800000060.001", 1_800_000_060_000),
        ("253402300798.5", 253_402_300_798_500),
    ] {
        let identity = raw_exp(exp).unwrap_or_else(|error| panic!("{exp}: {error}"));
        assert_eq!(identity.expires_at.as_millis(), millis, "{exp}");
    }
    for past in ["1800000000.0", "1800000000.0004", "1.8e9", "1799999999.999", "5e-324", "-0.5", "-1e15"] {
        assert_eq!(raw_exp(past), Err(AuthError::Expired), "{past}");
    }
    // The fraction counts: the token expires exactly at its `exp`.
    let token = sign(&with(json!({"exp": NOW.as_secs() as f64 + 0.25})));
    let at = |millis| hs256().verify(&token, UnixTime::from_millis(NOW.as_millis() + millis));
    at(249).expect("not yet");
    assert_eq!(at(250), Err(AuthError::Expired));
}

proptest::proptest! {
    /// No finite number causes a panic, or a token that is valid after its `exp`.
    #[test]
    fn a_token_never_expires_later_than_its_exp(exp in proptest::num::f64::NORMAL) {
        match verify(&with(json!({ "exp": exp }))) {
            Ok(identity) => proptest::prop_assert!(identity.expires_at.as_millis() as f64 <= exp * 1000.0),
            Err(AuthError::Expired) => proptest::prop_assert!(exp < NOW.as_secs() as f64 + 0.001),
            Err(error) => proptest::prop_assert!(exp >= UnixTime::MAX.as_secs() as f64, "{error}"),
        }
    }
}

#[test]
fn expiry_is_reported_only_for_an_otherwise_valid_token() {
    let expired = with(json!({"exp": NOW.as_secs() - 1}));
    assert_eq!(verify(&expired), Err(AuthError::Expired));
    let other = verifier(Key::secret(b"another secret"));
    assert_unauthorized(other.verify(&sign(&expired), NOW));
    let audience = TokenVerifier { audience: Some("tasks".into()), ..hs256() };
    assert_unauthorized(audience.verify(&sign(&expired), NOW));
}

#[test]
fn nbf_and_iat_have_a_leeway_of_thirty_seconds() {
    for claim in ["nbf", "iat"] {
        let at = |value: Value| verify(&with(json!({ claim: value })));
        at(json!(NOW.as_secs() + 30)).expect("within the leeway");
        at(json!(NOW.as_secs() - 100_000)).expect("past");
        at(json!(-5)).expect("long past");
        at(json!(NOW.as_secs() as f64 + 29.5)).expect("within the leeway");
        at(json!(1.7e9)).expect("past");
        at(json!(-1e300)).expect("long past");
        assert_unauthorized(at(json!(NOW.as_secs() + 31)));
        assert_unauthorized(at(json!(NOW.as_secs() as f64 + 30.5)));
        assert_unauthorized(at(json!(1e300)));
        assert_unauthorized(at(json!(u64::MAX)));
        assert_unauthorized(at(json!("1")));
    }
}

#[test]
fn issuer_and_audience_are_checked_where_configured() {
    let strict =
        TokenVerifier { issuer: Some("https://id".into()), audience: Some("tasks".into()), ..hs256() };
    let check = |changes| strict.verify(&sign(&with(changes)), NOW);
    check(json!({"iss": "https://id", "aud": "tasks"})).expect("valid");
    check(json!({"iss": "https://id", "aud": ["other", "tasks"]})).expect("valid");
    for wrong in [
        json!({"iss": "https://id"}),
        json!({"aud": "tasks"}),
        json!({"iss": "https://id/", "aud": "tasks"}),
        json!({"iss": ["https://id"], "aud": "tasks"}),
        json!({"iss": "https://id", "aud": "Tasks"}),
        json!({"iss": "https://id", "aud": []}),
        json!({"iss": "https://id", "aud": ["tasks2", 5]}),
        json!({"iss": "https://id", "aud": {"tasks": true}}),
    ] {
        assert_unauthorized(check(wrong));
    }
    verify(&with(json!({"iss": 5, "aud": {"x": 1}}))).expect("not configured, not checked");
}

#[test]
fn a_user_claim_that_is_not_a_usable_string_is_refused() {
    for wrong in [
        json!(null),
        json!(""),
        json!({"id": "x"}),
        json!(["x"]),
        json!(true),
        json!("a\nb"),
        json!("a".repeat(257)),
    ] {
        assert_unauthorized(verify(&with(json!({ "sub": wrong }))));
    }
    let longest = "é".repeat(128);
    assert_eq!(verify(&with(json!({ "sub": longest }))).expect("valid").viewer.user.as_str(), longest);
}

#[test]
fn users_and_organisations_may_be_whole_numbers_and_are_never_rounded() {
    let raw = |claim: &str, number: &str| {
        let payload = format!(r#"{{"sub":"alice","exp":1800000060,"{claim}":{number}}}"#);
        let payload = if claim == "sub" { payload.replacen(r#""sub":"alice","#, "", 1) } else { payload };
        hs256().verify(&sign_raw(r#"{"alg":"HS256"}"#, payload.as_bytes(), SECRET), NOW)
    };
    for number in [
        "0",
        "7",
        "42",
        "-5",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551615",
        "-9223372036854775808",
    ] {
        assert_eq!(raw("sub", number).expect(number).viewer.user.as_str(), number);
        assert_eq!(raw("orgId", number).expect(number).viewer.org, OrgId::parse(number));
    }
    let text = verify(&with(json!({"sub": "42"}))).expect("valid").viewer.user;
    assert_eq!(raw("sub", "42").expect("valid").viewer.user, text, "the same user, however it is written");
    for number in [
        "42.0",
        "42.5",
        "1e3",
        "-0",
        "-0.0",
        "18446744073709551616",
        "-9223372036854775809",
        "9007199254740993.0",
        "1e300",
    ] {
        assert_unauthorized(raw("sub", number));
        assert_unauthorized(raw("orgId", number));
    }
}

#[test]
fn a_claim_may_be_named_by_its_path() {
    let names =
        ClaimNames { user: "user.id".into(), org: "user.org.id".into(), name: "user.profile.name".into() };
    let by_path = TokenVerifier { claims: names, ..hs256() };
    let verify = |changes: Value| by_path.verify(&sign(&with(changes)), NOW);
    let nested = json!({"id": "bob", "org": {"id": 7}, "profile": {"name": "Bob"}});
    let identity = verify(json!({"user": nested})).expect("valid");
    assert_eq!(identity.viewer.user.as_str(), "bob");
    assert_eq!(identity.viewer.org, OrgId::parse("7"));
    assert_eq!(identity.name.as_deref(), Some("Bob"));

    let user = |changes: Value| verify(changes).expect("valid").viewer.user.to_string();
    assert_eq!(
        user(json!({"user": nested, "user.id": "carol"})),
        "carol",
        "a claim of exactly that name wins"
    );
    assert_eq!(user(json!({"user": {"id": "bob"}, "user.org": {"id": "x"}})), "bob");
    for absent in [
        json!({}),
        json!({"user": "bob"}),
        json!({"user": null}),
        json!({"user": {}}),
        json!({"user": {"id": null}}),
        json!({"user": {"id": {"id": "bob"}}}),
        json!({"user": [{"id": "bob"}]}),
        json!({"user": ["bob"]}),
        json!({"user": {"ID": "bob"}}),
        // The claim of exactly that name exists and can't be used.
        json!({"user": nested, "user.id": {}}),
    ] {
        assert_unauthorized(verify(absent));
    }
    let payload = br#"{"exp":1800000060,"user":{"id":"bob"},"user.id":null}"#;
    assert_unauthorized(by_path.verify(&sign_raw(r#"{"alg":"HS256"}"#, payload, SECRET), NOW));
}

/// A token whose organisation can't be read must not count as a token without one, which gets the default organisation.
#[test]
fn a_path_to_an_organisation_that_ends_too_early_is_refused() {
    let claims = ClaimNames { org: "org.id".into(), ..ClaimNames::default() };
    let verifier = TokenVerifier { claims, ..hs256() };
    for odd in [json!({"org": "acme"}), json!({"org": 7}), json!({"org": ["acme"]})] {
        assert_unauthorized(verifier.verify(&sign(&with(odd)), NOW));
    }
    for (claims, org) in
        [(json!({"org": {"id": "acme"}}), Some("acme")), (json!({"org": null}), None), (json!({}), None)]
    {
        let identity = verifier.verify(&sign(&with(claims)), NOW).expect("accepted");
        assert_eq!(identity.viewer.org.as_ref().map(OrgId::as_str), org);
    }
}

#[test]
fn a_path_may_contain_names_with_dots_and_does_not_lead_into_a_list() {
    for (path, claims, user) in [
        (
            "https://id.example.com/app.user.id",
            json!({"https://id.example.com/app": {"user": {"id": "bob"}}}),
            Some("bob"),
        ),
        ("https://id.example.com/user", json!({"https://id.example.com/user": "bob"}), Some("bob")),
        ("a.b.c", json!({"a": {"b.c": "bob"}}), Some("bob")),
        ("a.b.c", json!({"a.b": {"c": "bob"}, "a": {"b": {"c": "carol"}}}), Some("bob")),
        ("a.b.c", json!({"a.b": 5, "a": {"b": {"c": "carol"}}}), None),
        ("a..b", json!({"a": {"": {"b": "bob"}}}), Some("bob")),
        ("a.0", json!({"a": ["bob"]}), None),
        ("a.0", json!({"a": {"0": "bob"}}), Some("bob")),
        ("a.length", json!({"a": ["bob"]}), None),
        ("a.constructor", json!({"a": {}}), None),
        ("__proto__.x", json!({}), None),
        (".", json!({"sub": "bob"}), None),
    ] {
        let verifier =
            TokenVerifier { claims: ClaimNames { user: path.into(), ..ClaimNames::default() }, ..hs256() };
        let found = verifier.verify(&sign(&with(claims)), NOW).ok();
        assert_eq!(found.as_ref().map(|identity| identity.viewer.user.as_str()), user, "{path}");
    }
}

#[test]
fn the_organisation_is_optional_and_has_a_default() {
    let with_default = TokenVerifier { default_org: DefaultOrg(OrgId::parse("everyone")), ..hs256() };
    for (org, plain, defaulted) in [
        (json!("acme"), Some("acme"), Some("acme")),
        (json!(""), None, Some("everyone")),
        (json!(null), None, Some("everyone")),
    ] {
        let token = sign(&with(json!({ "orgId": org })));
        let named = |verifier: &TokenVerifier| verifier.verify(&token, NOW).expect("valid").viewer.org;
        assert_eq!(named(&hs256()), plain.and_then(OrgId::parse));
        assert_eq!(named(&with_default), defaulted.and_then(OrgId::parse));
    }
    for wrong in
        [json!(7.5), json!(["acme"]), json!({"id": "acme"}), json!("a\u{7f}"), json!("a".repeat(257))]
    {
        assert_unauthorized(verify(&with(json!({ "orgId": wrong }))));
    }
}

#[test]
fn claims_can_have_other_names() {
    let names = ClaimNames { user: "uid".into(), org: "tenant".into(), name: "nick".into() };
    let renamed = TokenVerifier { claims: names, ..hs256() };
    let token = sign(&with(json!({"uid": "bob", "tenant": "initech", "nick": "Bob"})));
    let identity = renamed.verify(&token, NOW).expect("valid");
    assert_eq!(identity.viewer.user.as_str(), "bob");
    assert_eq!(identity.viewer.org, OrgId::parse("initech"));
    assert_eq!(identity.name.as_deref(), Some("Bob"));
    assert_unauthorized(renamed.verify(&sign(&claims()), NOW));
}

#[test]
fn a_token_with_an_unusable_name_is_accepted() {
    assert_eq!(verify(&claims()).expect("valid").name.as_deref(), Some("Alice"));
    for name in [json!(null), json!(""), json!(3), json!("A\u{1b}[2J")] {
        assert_eq!(verify(&with(json!({ "name": name }))).expect("valid").name, None);
    }
}

/// JavaScript writes a name that was cut inside an emoji as `"\\ud83d"`. The verifier repairs such a name, but never an
/// id.
#[test]
fn a_name_may_contain_half_of_an_emoji_and_an_id_may_not() {
    let verify =
        |payload: &str| hs256().verify(&sign_raw(r#"{"alg":"HS256"}"#, payload.as_bytes(), SECRET), NOW);
    let identity = verify(r#"{"sub":"alice","orgId":"acme","name":"Al \ud83d","exp":4102444800}"#);
    let identity = identity.expect("valid");
    assert_eq!(identity.name.as_deref(), Some("Al \u{fffd}"));
    for payload in [
        r#"{"sub":"a\ud83d","exp":4102444800}"#,
        r#"{"sub":"alice","orgId":"acme\udc00","exp":4102444800}"#,
        r#"{"sub":"alice","\ud83d":1,"\ud83e":2,"exp":4102444800}"#,
    ] {
        assert_unauthorized(verify(payload));
    }
    // An id that really contains U+FFFD is accepted.
    let named = verify(r#"{"sub":"a\ufffd","name":"A","exp":4102444800}"#).expect("valid");
    assert_eq!(named.viewer.user.as_str(), "a\u{fffd}");
}

#[test]
fn scopes_are_read_from_three_claims() {
    for scopes in [
        json!({"scope": "tasks:read  tasks:write"}),
        json!({"scopes": ["tasks:read", "tasks:write", 5]}),
        json!({"scp": ["tasks:write"], "scope": "tasks:read tasks:write"}),
        json!({"scp": "tasks:read tasks:write"}),
    ] {
        let identity = verify(&with(scopes)).expect("valid");
        assert_eq!(identity.scopes, ["tasks:read", "tasks:write"]);
        assert!(identity.has_scope("tasks:write"));
        assert!(!identity.has_scope("tasks"));
    }
    assert!(verify(&with(json!({"scope": 5}))).expect("valid").scopes.is_empty());
}

#[test]
fn only_usable_public_keys_are_accepted() {
    for (pem, error) in [
        (include_str!("testdata/rsa.pem"), KeyError::Private),
        (include_str!("testdata/certificate.pem"), KeyError::Certificate),
        (include_str!("testdata/p384.pub.pem"), KeyError::Kind),
        (include_str!("testdata/ed448.pub.pem"), KeyError::Kind),
        (include_str!("testdata/rsa1024.pub.pem"), KeyError::RsaSize),
        ("", KeyError::NotPem),
        ("ssh-ed25519 AAAA", KeyError::NotPem),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", KeyError::Kind),
        // An Ed25519 key of two bytes.
        ("-----BEGIN PUBLIC KEY-----\nMAwwBQYDK2VwAwMAAQI=\n-----END PUBLIC KEY-----", KeyError::Kind),
    ] {
        assert_eq!(Key::public_key(pem).expect_err("refused"), error, "{pem}");
    }
    let twice = format!("{RSA_PUBLIC}{RSA_PUBLIC}");
    assert_eq!(Key::public_key(&twice).expect_err("refused"), KeyError::NotPem);
    Key::public_key(&RSA_PUBLIC.replace('\n', "\r\n")).expect("line ends don't matter");
}

/// A public key in PEM form.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn ed25519_pem(point: &[u8; 32]) -> String {
    let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], point].concat();
    pem("PUBLIC KEY", &spki)
}

/// `first`, then 30 times `middle`, then `last`.
fn point(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut point = [middle; 32];
    (point[0], point[31]) = (first, last);
    point
}

#[test]
fn an_ed25519_key_for_which_everybody_can_sign_is_refused() {
    let order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    let of_order_8 = order_8.into_iter().flat_map(|hex| {
        let bytes: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&hex[2 * n..][..2], 16).expect("hex")).collect();
        let positive: [u8; 32] = bytes.try_into().expect("32 bytes");
        let mut negative = positive;
        negative[31] |= 0x80;
        [positive, negative]
    });
    let canonical = [point(1, 0, 0), point(0xec, 0xff, 0x7f), point(0, 0, 0), point(0, 0, 0x80)];
    // The same points, written with a sign that zero does not have, or with a coordinate that is not reduced.
    let others = [
        point(1, 0, 0x80),
        point(0xec, 0xff, 0xff),
        point(0xed, 0xff, 0x7f),
        point(0xed, 0xff, 0xff),
        point(0xee, 0xff, 0x7f),
        point(0xee, 0xff, 0xff),
    ];
    let all: Vec<[u8; 32]> = of_order_8.chain(canonical).chain(others).collect();
    assert_eq!(all.len(), 14);
    for point in all {
        assert_eq!(Key::ed25519(&point).expect_err("refused"), KeyError::SmallOrder, "{point:x?}");
        let by_pem = Key::public_key(&ed25519_pem(&point)).expect_err("refused");
        assert_eq!(by_pem, KeyError::SmallOrder, "{point:x?}");
    }
}

#[test]
fn an_ed25519_key_with_a_coordinate_that_is_not_reduced_is_refused() {
    for excess in 0..19 {
        for last in [0x7f, 0xff] {
            let point = point(0xed + excess, 0xff, last);
            Key::ed25519(&point).expect_err("not reduced");
            Key::public_key(&ed25519_pem(&point)).expect_err("not reduced");
        }
    }
}

/// PKCS#1. Both numbers are big-endian.
fn rsa_pem(modulus: &[u8], exponent: &[u8]) -> String {
    let tagged = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    };
    // DER requires the shortest form of a length.
    let integer = |number: &[u8]| {
        let number = if number[0] & 0x80 == 0 { number.to_vec() } else { [&[0], number].concat() };
        match u8::try_from(number.len()) {
            Ok(length) if length < 0x80 => [&[2, length][..], &number].concat(),
            _ => tagged(2, &number),
        }
    };
    pem("RSA PUBLIC KEY", &tagged(0x30, &[integer(modulus), integer(exponent)].concat()))
}

#[test]
fn an_rsa_key_in_pem_form_is_checked_like_a_fetched_one() {
    let mut modulus = [0xab; 256];
    Key::public_key(&rsa_pem(&modulus, &[1, 0, 1])).expect("usable");
    for exponent in [&[1][..], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        let refused = Key::public_key(&rsa_pem(&modulus, exponent)).expect_err("refused");
        assert_eq!(refused, KeyError::RsaExponent, "{exponent:?}");
        assert_eq!(Key::rsa(&modulus, exponent).expect_err("refused"), refused);
    }
    assert_eq!(Key::public_key(&rsa_pem(&[0xab; 255], &[3])).expect_err("refused"), KeyError::RsaSize);
    assert_eq!(Key::public_key(&rsa_pem(&[0xab; 513], &[3])).expect_err("refused"), KeyError::RsaSize);
    modulus[255] = 0xaa;
    assert_eq!(Key::public_key(&rsa_pem(&modulus, &[3])).expect_err("refused"), KeyError::RsaModulus);
    assert_eq!(Key::rsa(&modulus, &[3]).expect_err("refused"), KeyError::RsaModulus);
}

#[test]
fn a_signed_token_verifies() {
    let names = ClaimNames { user: "uid".into(), ..ClaimNames::default() };
    let signer = TokenSigner::new(SECRET, names.clone(), Some("iss".into()), Some("aud".into()));
    let grant = Grant {
        user: "alice".into(),
        org: Some("acme".into()),
        name: Some("Alice".into()),
        scope: Some("tasks:write".into()),
        ttl: Duration::from_secs(60),
    };
    let token = signer.sign(&grant, NOW).expect("signs");
    let verifier =
        TokenVerifier { claims: names, issuer: Some("iss".into()), audience: Some("aud".into()), ..hs256() };
    let identity = verifier.verify(&token, NOW).expect("valid");
    assert_eq!(identity.viewer.user.as_str(), "alice");
    assert_eq!(identity.viewer.org, OrgId::parse("acme"));
    assert_eq!(identity.name.as_deref(), Some("Alice"));
    assert!(identity.has_scope("tasks:write"));
    assert_eq!(identity.expires_at.since(NOW), Duration::from_secs(60));
    assert!(!identity.is_expired(NOW));
    assert!(identity.is_expired(identity.expires_at));
}

#[test]
fn debug_output_contains_no_secret() {
    let signer = TokenSigner::new(SECRET, ClaimNames::default(), None, None);
    let shown = format!("{:?} {signer:?} {:?}", hs256(), Key::secret(SECRET));
    let bytes = format!("{SECRET:?}");
    assert!(!shown.contains("only this test knows") && !shown.contains(bytes.trim_matches(['[', ']'])));
}

#[test]
fn a_disconnected_user_needs_a_later_token() {
    let verifier = hs256();
    let at = |secs: u64| UnixTime::from_secs(NOW.as_secs() - secs);
    let issued = |secs: u64| sign(&with(json!({"iat": at(secs).as_secs()})));
    assert!(verifier.verify(&issued(10), NOW).is_ok());
    verifier.revocations.add(UserId::parse("alice").expect("a name"), at(5));
    for refused in [issued(10), issued(5), sign(&claims())] {
        assert_unauthorized(verifier.verify(&refused, NOW));
    }
    assert_eq!(verifier.verify(&issued(4), NOW).expect("a later token").issued_at, Some(at(4)));
}
