//! Revocation lists of the generated root.

use der::asn1::{BitString, ObjectIdentifier};
use x509_cert::certificate::{Raw, Version};
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::serial_number::SerialNumber;

use super::*;
use crate::simulated::authority::{name, time};
use crate::snp::roots::TrustRootError;
use crate::verifier::Revocation;

/// A list in parts: the hours from now when it was made and when the next is due, the serials, the signer.
struct List {
    this_update: i64,
    next_update: Option<i64>,
    serials: Vec<u8>,
    issuer: String,
    signer: Key,
    extensions: Option<Vec<Extension>>,
}

impl List {
    fn naming(serials: &[u8]) -> Self {
        Self {
            this_update: -1,
            next_update: Some(1),
            serials: serials.to_vec(),
            issuer: root_common_name(Product::Genoa, true),
            signer: Key::Root,
            extensions: None,
        }
    }

    fn der(self) -> Vec<u8> {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let at = |hours: i64| time(now.checked_add(Span::new().hours(hours)).unwrap()).unwrap();
        let revoked = |serial: u8| RevokedCert::<Raw> {
            serial_number: SerialNumber::new(&[serial]).unwrap(),
            revocation_date: at(-1),
            crl_entry_extensions: None,
        };
        let body = TbsCertList::<Raw> {
            version: Version::V2,
            signature: pss().unwrap(),
            issuer: name(&self.issuer).unwrap(),
            this_update: at(self.this_update),
            next_update: self.next_update.map(at),
            revoked_certificates: Some(self.serials.into_iter().map(revoked).collect()),
            crl_extensions: self.extensions,
        };
        issuer(&self.issuer, self.signer).sign(&body.to_der().unwrap(), pss().unwrap()).unwrap()
    }
}

/// The failures with these lists.
fn with(lists: Vec<List>, policy: Revocation) -> Vec<CheckName> {
    failures(|case| {
        case.expected.requirements.revocation = policy;
        case.trust = Box::new(move |root| {
            let trust = TrustRoots::amd().with_simulated(root).unwrap();
            lists.into_iter().fold(trust, |trust, list| trust.with_revocation_list(&list.der()).unwrap())
        });
    })
}

#[test]
fn a_revoked_intermediate_is_refused() {
    for policy in [Revocation::IfPresent, Revocation::Require] {
        assert_eq!(with(vec![List::naming(&[2])], policy), [CheckName::Revocation]);
        assert_eq!(with(vec![List::naming(&[1, 3])], policy), [], "others are revoked");
        assert_eq!(with(vec![List::naming(&[]), List::naming(&[7, 2])], policy), [CheckName::Revocation]);
    }
}

#[test]
fn silence_counts_only_while_a_list_is_current() {
    let dated = |this_update, next_update| List { this_update, next_update, ..List::naming(&[]) };
    for list in [(-2, Some(-1)), (1, Some(2)), (-1, None), (-1, Some(0))] {
        let failures = with(vec![dated(list.0, list.1)], Revocation::IfPresent);
        assert_eq!(failures, [CheckName::Revocation], "{list:?}");
    }
    assert_eq!(with(vec![dated(-2, Some(-1)), dated(0, Some(1))], Revocation::Require), []);
    // Out of date, but it names the intermediate.
    let old = List { this_update: -3, next_update: Some(-2), ..List::naming(&[2]) };
    assert_eq!(with(vec![old, List::naming(&[])], Revocation::Require), [CheckName::Revocation]);
}

#[test]
fn without_a_list_the_configuration_decides() {
    assert_eq!(with(Vec::new(), Revocation::IfPresent), []);
    assert_eq!(with(Vec::new(), Revocation::Require), [CheckName::Revocation]);
}

#[test]
fn only_whole_lists_that_a_root_signed_are_taken() {
    let take = |list: Vec<u8>| {
        let root = Case::new().root.der();
        TrustRoots::amd().with_simulated(&root).unwrap().with_revocation_list(&list)
    };
    let other_signer = List { signer: Key::Intermediate, ..List::naming(&[]) };
    assert!(matches!(take(other_signer.der()), Err(TrustRootError::NotSigned)));
    let other_issuer = List { issuer: "ARK-Milan SIMULATED".to_owned(), ..List::naming(&[]) };
    assert!(matches!(take(other_issuer.der()), Err(TrustRootError::NotSigned)));
    let mut changed = List::naming(&[2]).der();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(take(changed), Err(TrustRootError::NotSigned)));
    // A list of part of the certificates (issuing distribution point), or of changes to another.
    for id in ["2.5.29.28", "2.5.29.27"] {
        let extension = amd(ObjectIdentifier::new_unwrap(id), BitString::from_bytes(&[0]).unwrap().to_der().unwrap());
        let partial = List { extensions: Some(vec![extension.unwrap()]), ..List::naming(&[]) };
        assert!(matches!(take(partial.der()), Err(TrustRootError::Malformed(_))), "{id}");
    }
    assert!(matches!(take(vec![0x30, 0]), Err(TrustRootError::Malformed(_))));
}

#[test]
fn a_list_that_cannot_be_used_is_not_taken_for_none() {
    let lying_at = |product, list: Vec<u8>| {
        failures(|case| {
            case.expected.requirements.revocation = Revocation::IfPresent;
            case.trust = Box::new(move |root| {
                TrustRoots::amd().with_simulated(root).unwrap().with_revocation_list_of(product, &list)
            });
        })
    };
    assert_eq!(lying_at(Product::Genoa, List::naming(&[]).der()), []);
    let other_signer = List { signer: Key::Intermediate, ..List::naming(&[]) };
    for unusable in [other_signer.der(), b"damaged".to_vec(), Vec::new()] {
        assert_eq!(lying_at(Product::Genoa, unusable.clone()), [CheckName::Revocation]);
        assert_eq!(lying_at(Product::Milan, unusable), [], "another product's");
    }
    assert_eq!(lying_at(Product::Milan, List::naming(&[2]).der()), [CheckName::Revocation], "in the wrong place");
}

#[test]
fn a_list_is_dated_by_the_root_of_its_product_alone() {
    let root = Case::new().root.der();
    let trust = TrustRoots::amd().with_simulated(&root).unwrap();
    let date = |product, list: List| trust.revocation_list_date(product, &list.der());
    let made = |this_update| List { this_update, ..List::naming(&[]) };
    assert!(date(Product::Genoa, made(-2)).unwrap() < date(Product::Genoa, made(-1)).unwrap());
    assert!(matches!(date(Product::Milan, made(-1)), Err(TrustRootError::NotSigned)));
    let other_signer = List { signer: Key::Intermediate, ..made(-1) };
    assert!(matches!(date(Product::Genoa, other_signer), Err(TrustRootError::NotSigned)));
    assert!(matches!(trust.revocation_list_date(Product::Genoa, b"a list"), Err(TrustRootError::Malformed(_))));
}
