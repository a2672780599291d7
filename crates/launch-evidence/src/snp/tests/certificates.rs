//! One thing wrong in the chain, or between chain and report; every certificate validly signed unless that
//! is it.

use der::Decode as _;
use der::asn1::{Any, ObjectIdentifier, OctetString};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::*;
use crate::simulated::authority::critical;
use crate::snp::certificate::PSS_SHA384;
use crate::snp::endorsement::PRODUCT_NAME;
use crate::snp::roots::TrustRootError;

/// Replaces the value of an extension; `None` takes it away.
fn set_extension(part: &mut Part, id: ObjectIdentifier, value: Option<&[u8]>) {
    let extensions = &mut part.spec.extensions;
    match value {
        None => extensions.retain(|extension| extension.extn_id != id),
        Some(value) => {
            let extension = extensions.iter_mut().find(|extension| extension.extn_id == id).unwrap();
            extension.extn_value = OctetString::new(value).unwrap();
        }
    }
}

fn reissue(case: &mut Case, edit: impl FnOnce(&mut Vec<Vec<u8>>) + 'static) {
    case.after_issuing = Some(Box::new(edit));
}

#[test]
fn certificates_have_one_form() {
    fails_only(CheckName::CertificateForm, |case| reissue(case, Vec::clear));
    fails_only(CheckName::CertificateForm, |case| reissue(case, |chain| drop(chain.remove(0))));
    fails_only(CheckName::CertificateForm, |case| reissue(case, |chain| chain[0].truncate(40)));
    fails_only(CheckName::CertificateForm, |case| reissue(case, |chain| chain[0].push(0)));
    fails_only(CheckName::CertificateForm, |case| reissue(case, |chain| chain[1].push(0)));
    // Another endorsement key beside it.
    let other = Case::new().leaf.der();
    fails_only(CheckName::CertificateForm, |case| reissue(case, |chain| chain.push(other)));
    // An extension twice.
    fails_only(CheckName::CertificateForm, |case| {
        let extension = case.leaf.spec.extensions[0].clone();
        case.leaf.spec.extensions.push(extension);
    });
    // A key of another size or form.
    fails_only(CheckName::CertificateForm, |case| {
        let small = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        case.intermediate.spec.key = rsa_public_key(&small).unwrap();
    });
    fails_only(CheckName::CertificateForm, |case| {
        let compressed = [&[2][..], &[7; 48]].concat();
        case.leaf.spec.key = p384_public_key(&compressed).unwrap();
    });
    // The same certificate twice, and in any order, is no offence.
    let twice = |chain: &mut Vec<Vec<u8>>| {
        chain.push(chain[0].clone());
        chain.reverse();
    };
    assert_eq!(failures(|case| reissue(case, twice)), []);
}

/// Replaces the first `from` in a body that is about to be signed.
fn replace(part: &mut Part, from: &'static [u8], to: &'static [u8]) {
    part.edit_body = Some(Box::new(move |body| {
        let at = body.windows(from.len()).position(|window| window == from).unwrap();
        body[at..at + from.len()].copy_from_slice(to);
    }));
}

#[test]
fn certificates_have_one_version_and_one_algorithm() {
    // Version 2 in place of 3.
    fails_only(CheckName::CertificateForm, |case| replace(&mut case.leaf, &[0xA0, 3, 2, 1, 2], &[0xA0, 3, 2, 1, 1]));
    // A salt of 32 bytes in place of 48: in the body, beside the signature, in both; and SHA-256 in both.
    let salt = |at: usize, byte: u8| {
        let mut parameters = PSS_SHA384;
        parameters[at] = byte;
        Some(Any::from_der(&parameters).unwrap())
    };
    let in_body = |case: &mut Case| replace(&mut case.leaf, &[0xA2, 3, 2, 1, 48], &[0xA2, 3, 2, 1, 32]);
    fails_only(CheckName::CertificateForm, in_body);
    fails_only(CheckName::CertificateForm, |case| case.leaf.algorithm.parameters = salt(53, 32));
    fails_only(CheckName::CertificateForm, |case| {
        in_body(case);
        case.leaf.algorithm.parameters = salt(53, 32);
    });
    fails_only(CheckName::CertificateForm, |case| {
        replace(&mut case.leaf, &[0x65, 3, 4, 2, 2, 5, 0, 0xA1], &[0x65, 3, 4, 2, 1, 5, 0, 0xA1]);
        case.leaf.algorithm.parameters = salt(16, 1);
    });
}

#[test]
fn names_link_the_chain_to_its_product() {
    // Another kind of key; a name without its mark.
    for name in ["SEV-CEK SIMULATED", "SEV-VCEK", "SEV-VCEK SIMULATED 2", "sev-vcek SIMULATED"] {
        fails_only(CheckName::CertificateNames, |case| name.clone_into(&mut case.leaf.spec.subject));
    }
    // An intermediate of another name, which the endorsement key's certificate does name.
    for name in ["SEV-Milan SIMULATED", "SEV-VLEK-Genoa SIMULATED", "SEV-Genoa", "ARK-Genoa SIMULATED 2"] {
        fails_only(CheckName::CertificateNames, |case| {
            name.clone_into(&mut case.intermediate.spec.subject);
            name.clone_into(&mut case.leaf.issuer);
        });
    }
    // An endorsement key that names an intermediate that is not there.
    fails_only(CheckName::CertificateNames, |case| "SEV-Genoa SIMULATED 2".clone_into(&mut case.leaf.issuer));
    fails_only(CheckName::CertificateNames, |case| reissue(case, |chain| chain.truncate(1)));
}

#[test]
fn the_root_is_never_taken_from_evidence() {
    // Valid in everything, but this root was not given to the verifier.
    fails_only(CheckName::TrustRoot, |case| case.trust = Box::new(|_| TrustRoots::amd()));
    let root = Case::new().root.der();
    fails_only(CheckName::TrustRoot, |case| {
        case.trust = Box::new(|_| TrustRoots::amd());
        reissue(case, |chain| chain.push(root));
    });
    // An intermediate that names one of AMD's roots, which did not sign it.
    fails_only(CheckName::TrustRoot, |case| "ARK-Milan".clone_into(&mut case.intermediate.issuer));
}

#[test]
fn authorities_are_authorities_and_endorsement_keys_are_none() {
    let extensions = |ca, below, usage: der::flagset::FlagSet<KeyUsages>| {
        vec![
            critical(&BasicConstraints { ca, path_len_constraint: below }).unwrap(),
            critical(&KeyUsage(usage)).unwrap(),
        ]
    };
    let sign: der::flagset::FlagSet<KeyUsages> = KeyUsages::KeyCertSign.into();
    let intermediate = |extensions: Vec<_>| move |case: &mut Case| case.intermediate.spec.extensions = extensions;
    fails_only(CheckName::CertificateAuthority, intermediate(extensions(false, None, sign)));
    fails_only(CheckName::CertificateAuthority, intermediate(extensions(true, None, KeyUsages::CRLSign.into())));
    fails_only(CheckName::CertificateAuthority, intermediate(Vec::new()));
    fails_only(CheckName::CertificateAuthority, intermediate(extensions(true, None, sign)[..1].to_vec()));
    assert_eq!(failures(intermediate(extensions(true, None, sign))), []);
    for index in [0, 1] {
        let mut not_critical = extensions(true, Some(0), sign);
        not_critical[index].critical = false;
        fails_only(CheckName::CertificateAuthority, intermediate(not_critical));
    }
    // An extension that must be understood and is not.
    let mut unknown = extensions(true, Some(0), sign);
    unknown.push(amd(ObjectIdentifier::new_unwrap("1.2.3.4"), vec![5, 0]).unwrap());
    assert_eq!(failures(intermediate(unknown.clone())), []);
    unknown[2].critical = true;
    fails_only(CheckName::CertificateAuthority, intermediate(unknown.clone()));
    fails_only(CheckName::CertificateAuthority, |case| case.leaf.spec.extensions.push(unknown.remove(2)));
    // An endorsement key that could sign certificates.
    let authority = extensions(true, None, sign).remove(0);
    fails_only(CheckName::CertificateAuthority, |case| case.leaf.spec.extensions.push(authority));
    let plain = extensions(false, None, sign).remove(0);
    assert_eq!(failures(|case| case.leaf.spec.extensions.push(plain)), []);
}

#[test]
fn every_certificate_has_to_be_valid_now() {
    let second = Span::new().seconds(1);
    let parts: [fn(&mut Case) -> &mut Part; 3] =
        [|case| &mut case.leaf, |case| &mut case.intermediate, |case| &mut case.root];
    for which in parts {
        fails_only(CheckName::CertificateDates, |case| {
            let now = case.expected.now;
            which(case).spec.not_after = now.checked_sub(second).unwrap();
        });
        fails_only(CheckName::CertificateDates, |case| {
            let now = case.expected.now;
            which(case).spec.not_before = now.checked_add(second).unwrap();
        });
        // The bounds themselves are inside.
        assert_eq!(
            failures(|case| {
                let now = case.expected.now;
                which(case).spec.not_before = now;
                which(case).spec.not_after = now;
            }),
            []
        );
    }
}

#[test]
fn the_chain_is_signed_from_the_root_down() {
    fails_only(CheckName::ChainSignature, |case| case.leaf.signer = Key::Root);
    fails_only(CheckName::ChainSignature, |case| case.intermediate.signer = Key::Intermediate);
    fails_only(CheckName::ChainSignature, |case| reissue(case, |chain| *chain[0].last_mut().unwrap() ^= 1));
    fails_only(CheckName::ChainSignature, |case| reissue(case, |chain| *chain[1].last_mut().unwrap() ^= 1));
    // Of two intermediates of one name, the one that signed counts, wherever it stands.
    let mut other = Case::new().intermediate;
    other.spec.key = rsa_public_key(key(Key::Root)).unwrap();
    let other = other.der();
    assert_eq!(failures(|case| reissue(case, |chain| chain.insert(0, other))), []);
}

#[test]
fn the_signing_key_field_agrees_with_the_certificate() {
    for key_info in [1 << 2, 2 << 2, 7 << 2, 1 << 1] {
        fails_only(CheckName::SigningKey, |case| case.report[0x48] = key_info);
    }
    let mut case = Case::of(Product::Genoa, 3, KeyKind::Vlek);
    case.report[0x48] = 0;
    assert_eq!(case.verify().unwrap_err(), [CheckName::SigningKey]);
    // The author key's bit is no offence.
    assert_eq!(failures(|case| case.report[0x48] = 1), []);
}

#[test]
fn processor_certificate_and_chain_are_of_one_product() {
    // Milan; family 0, which is not any; a generation without a root here; an older one.
    for cpuid in [[0x19, 0x01, 0x01], [0, 0, 0], [0x1A, 0x50, 0], [0x17, 0x31, 0]] {
        fails_only(CheckName::Product, |case| case.put(0x188, cpuid));
    }
    for model in [0x10, 0x1F, 0xA0, 0xAF] {
        assert_eq!(failures(|case| case.put(0x188, [0x19, model, 0])), [], "model {model:#x}");
    }
    for name in ["Milan", "GenoaX", "genoa", "G"] {
        let value = Ia5String::new(name).unwrap().to_der().unwrap();
        fails_only(CheckName::Product, |case| set_extension(&mut case.leaf, PRODUCT_NAME, Some(&value)));
    }
    fails_only(CheckName::Product, |case| set_extension(&mut case.leaf, PRODUCT_NAME, None));
    let stepping = Ia5String::new("Genoa-B1").unwrap().to_der().unwrap();
    assert_eq!(failures(|case| set_extension(&mut case.leaf, PRODUCT_NAME, Some(&stepping))), []);
}

#[test]
fn the_certificate_endorses_the_reported_tcb() {
    for product in Product::ALL {
        for id in product.tcb_extensions() {
            for value in [None, Some(&[2, 1, 99][..]), Some(&[2, 2, 0, 9]), Some(&[4, 1, 9]), Some(&[])] {
                let mut case = Case::of(product, 5, KeyKind::Vcek);
                set_extension(&mut case.leaf, id, value);
                assert_eq!(case.verify().unwrap_err(), [CheckName::TcbExtensions], "{product} {id} {value:?}");
            }
        }
    }
    // The other way round: a report that says less than the key was derived from.
    fails_only(CheckName::TcbExtensions, |case| case.report[0x180 + 7] -= 1);
}

#[test]
fn the_certificate_endorses_the_chip() {
    let id = |len: usize, byte: u8| vec![byte; len];
    let wrapped = |content: Vec<u8>| [vec![4, u8::try_from(content.len()).unwrap()], content].concat();
    for value in [None, Some(id(64, 0xC6)), Some(id(63, 0xC5)), Some(id(8, 0xC5)), Some(wrapped(id(63, 0xC5)))] {
        fails_only(CheckName::HardwareId, |case| set_extension(&mut case.leaf, HARDWARE_ID, value.as_deref()));
    }
    let value = wrapped(id(64, 0xC5));
    assert_eq!(failures(|case| set_extension(&mut case.leaf, HARDWARE_ID, Some(&value))), []);
    // A short id does not stand for a chip whose id has zeros behind it.
    let short = wrapped(id(8, 0xC5));
    fails_only(CheckName::HardwareId, |case| {
        case.put(0x1A8, [0; 56]);
        set_extension(&mut case.leaf, HARDWARE_ID, Some(&short));
    });
    // A chip id that the host has masked.
    fails_only(CheckName::HardwareId, |case| case.put(0x1A0, [0; 64]));

    // Turin's has 8 bytes, and nothing behind them.
    let turin = |edit: &dyn Fn(&mut Case)| {
        let mut case = Case::of(Product::Turin, 5, KeyKind::Vcek);
        edit(&mut case);
        case.verify().err().unwrap_or_default()
    };
    assert_eq!(turin(&|case| case.report[0x1A8] = 1), [CheckName::HardwareId]);
    let value = id(64, 0xC5);
    assert_eq!(turin(&|case| set_extension(&mut case.leaf, HARDWARE_ID, Some(&value))), [CheckName::HardwareId]);
    let value = wrapped(id(8, 0xC5));
    assert_eq!(turin(&|case| set_extension(&mut case.leaf, HARDWARE_ID, Some(&value))), []);
}

#[test]
fn a_providers_key_names_the_provider_and_no_chip() {
    let vlek = |edit: &dyn Fn(&mut Case)| {
        let mut case = Case::of(Product::Genoa, 5, KeyKind::Vlek);
        edit(&mut case);
        case.verify().err().unwrap_or_default()
    };
    assert_eq!(vlek(&|case| set_extension(&mut case.leaf, CSP_ID, None)), [CheckName::HardwareId]);
    assert_eq!(vlek(&|case| set_extension(&mut case.leaf, CSP_ID, Some(&[0x16, 0]))), [CheckName::HardwareId]);
    let chip = amd(HARDWARE_ID, vec![0xC5; 64]).unwrap();
    assert_eq!(vlek(&|case| case.leaf.spec.extensions.push(chip.clone())), [CheckName::HardwareId]);
    // Masked or not, the chip id is no matter of a provider's key.
    assert_eq!(vlek(&|case| case.put(0x1A0, [0; 64])), []);
}

#[test]
fn a_simulated_root_says_so_and_is_its_own() {
    let add = |edit: &dyn Fn(&mut Case)| {
        let mut case = Case::new();
        edit(&mut case);
        TrustRoots::amd().with_simulated(&case.root.der())
    };
    assert!(add(&|_| {}).is_ok());
    let renamed = |name: &str| {
        add(&|case| {
            name.clone_into(&mut case.root.spec.subject);
            name.clone_into(&mut case.root.issuer);
        })
    };
    for name in ["ARK-Genoa", "ARK-Rome SIMULATED", "SIMULATED"] {
        assert!(matches!(renamed(name), Err(TrustRootError::NotSimulated)), "{name}");
    }
    assert!(matches!(add(&|case| case.root.signer = Key::Intermediate), Err(TrustRootError::NotSigned)));
    assert!(matches!(add(&|case| "other".clone_into(&mut case.root.issuer)), Err(TrustRootError::NotSigned)));
    assert!(matches!(add(&|case| case.root.spec.extensions.clear()), Err(TrustRootError::Malformed(_))));
    assert!(matches!(
        add(&|case| case.root.spec.extensions = authority_extensions(Some(0)).unwrap()),
        Err(TrustRootError::Malformed(_))
    ));
    assert!(matches!(TrustRoots::amd().with_simulated(b"no certificate"), Err(TrustRootError::Malformed(_))));
}

#[test]
fn intermediates_may_be_given_when_evidence_comes_without() {
    let Case { intermediate, .. } = Case::new();
    let der = intermediate.der();
    let given = der.clone();
    assert_eq!(
        failures(|case| {
            reissue(case, |chain| chain.truncate(1));
            case.trust = Box::new(move |root| {
                TrustRoots::amd().with_simulated(root).unwrap().with_intermediate(&given).unwrap()
            });
        }),
        []
    );
    assert!(matches!(TrustRoots::amd().with_intermediate(&der), Err(TrustRootError::NotSigned)));
}

#[test]
fn certificates_are_remembered_and_judged_again_all_the_same() {
    let (primary, verifier, mut expected) = Case::new().build();
    let failures = |primary: &Value, expected: &crate::verifier::Expected| -> Vec<CheckName> {
        let outcome = verifier.verify(primary, expected);
        outcome.err().map(|rejected| rejected.failures().map(|check| check.name).collect()).unwrap_or_default()
    };
    assert_eq!(failures(&primary, &expected), []);
    assert_eq!(verifier.vetted.len(), 2, "endorsement key and intermediate");
    assert_eq!(failures(&primary, &expected), [], "again, by memory");

    // Another report of the same chip is not taken on the certificate's word.
    let mut report = STANDARD.decode(primary["report"].as_str().unwrap()).unwrap();
    report[0x90] ^= 1;
    let changed = json!({"report": STANDARD.encode(&report), "cert_chain": primary["cert_chain"]});
    assert_eq!(failures(&changed, &expected), [CheckName::ReportSignature]);
    // A certificate that differs in its signature alone is another.
    let mut leaf = STANDARD.decode(primary["cert_chain"][0].as_str().unwrap()).unwrap();
    *leaf.last_mut().unwrap() ^= 1;
    let chain = json!([STANDARD.encode(&leaf), primary["cert_chain"][1]]);
    let changed = json!({"report": primary["report"], "cert_chain": chain});
    assert_eq!(failures(&changed, &expected), [CheckName::ChainSignature]);
    assert_eq!(verifier.vetted.len(), 2, "what does not verify is not remembered");
    // Time goes on.
    expected.now = expected.now.checked_add(jiff::Span::new().hours(2)).unwrap();
    assert_eq!(failures(&primary, &expected), [CheckName::CertificateDates]);
}
