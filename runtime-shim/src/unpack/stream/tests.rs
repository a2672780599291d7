use ocicrypt::cipher::{AES_256_CTR_HMAC_SHA256, Digest as PlainDigest, by_name};

use super::*;

/// A tar whose size is that of several chunks, with an entry boundary wherever one could cut it.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..4000_u32 {
        let content: Vec<u8> = number.to_le_bytes().repeat(64);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("file-{number}"), &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The ciphertext, and what opens it.
fn seal(layer: &[u8], promised: &[u8], compression: LayerCompression) -> (Vec<u8>, SealedStream) {
    let cipher = by_name(AES_256_CTR_HMAC_SHA256).unwrap();
    let mut encryptor = cipher.encryptor().unwrap();
    let mut ciphertext = layer.to_vec();
    encryptor.apply(&mut ciphertext).unwrap();
    let (public, private) = encryptor.finish(PlainDigest::of(promised));
    let decryptor = cipher.decryptor(&public, private).unwrap();
    let (digest, size) = (Digest::of(&ciphertext), ciphertext.len() as u64);
    (ciphertext, SealedStream { decryptor, compression, digest, size })
}

fn check(error: UnpackError) -> What {
    match error {
        UnpackError::Check(what) => what,
        other => panic!("{other}"),
    }
}

/// What Go's and everybody's readers make of it: entries until the end, or an error.
fn is_archive(bytes: &[u8]) -> bool {
    let mut archive = tar::Archive::new(bytes);
    archive.entries().unwrap().all(|entry| entry.is_ok_and(|mut entry| io::copy(&mut entry, &mut io::sink()).is_ok()))
}

#[test]
fn every_compression_passes_as_it_was_sealed() {
    let tar = archive();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for (layer, promised, compression) in [
        (tar.clone(), tar.clone(), LayerCompression::None),
        (gzip(&tar), gzip(&tar), LayerCompression::Gzip),
        // As buildah and podman seal a layer that they compress on the way.
        (gzip(&tar), tar.clone(), LayerCompression::Gzip),
        (zstd.clone(), zstd, LayerCompression::Zstd),
        (Vec::new(), Vec::new(), LayerCompression::None),
        (tar[..1024].to_vec(), tar[..1024].to_vec(), LayerCompression::None),
    ] {
        let (ciphertext, sealed) = seal(&layer, &promised, compression);
        let mut output = Vec::new();
        assert_eq!(relay(sealed, &mut &ciphertext[..], &mut output).unwrap(), layer.len() as u64);
        assert!(output == layer, "{compression:?}");
    }
}

/// Changes the ciphertext, and what the manifest says of it.
type Spoil = fn(&mut Vec<u8>, &mut SealedStream);

#[test]
fn what_was_changed_is_refused_and_its_end_never_comes_out() {
    let tar = archive();
    let cases: [(&str, What, Spoil); 5] = [
        ("a byte at the end", What::Ciphertext, |ciphertext, _| *ciphertext.last_mut().unwrap() ^= 1),
        ("a cut", What::Ciphertext, |ciphertext, _| ciphertext.truncate(ciphertext.len() - 1024)),
        ("more behind it", What::Ciphertext, |ciphertext, _| ciphertext.extend([0; 512])),
        ("a byte that the manifest knows of", What::Authentication, |ciphertext, sealed| {
            ciphertext[5000] ^= 1;
            sealed.digest = Digest::of(ciphertext);
        }),
        ("a cut that the manifest knows of", What::Authentication, |ciphertext, sealed| {
            // At the end of an entry: with the tail held back, the rest is an archive as well.
            ciphertext.truncate(1024 * 3000);
            (sealed.digest, sealed.size) = (Digest::of(ciphertext), ciphertext.len() as u64);
        }),
    ];
    for (name, what, spoil) in cases {
        let (mut ciphertext, mut sealed) = seal(&tar, &tar, LayerCompression::None);
        spoil(&mut ciphertext, &mut sealed);
        let mut output = Vec::new();
        assert_eq!(check(relay(sealed, &mut &ciphertext[..], &mut output).unwrap_err()), what, "{name}");
        let written = output.strip_suffix(&SPOILER).unwrap();
        assert!(written.len() + TAIL <= tar.len(), "{name}");
        assert!(!is_archive(&output), "{name}");
    }
}

#[test]
fn a_layer_shorter_than_what_is_held_back_does_not_come_out_at_all() {
    let (mut ciphertext, sealed) = seal(&[7; 1024], &[7; 1024], LayerCompression::None);
    ciphertext[0] ^= 1;
    let mut output = Vec::new();
    relay(sealed, &mut &ciphertext[..], &mut output).unwrap_err();
    assert_eq!(output, SPOILER);
}

#[test]
fn a_layer_that_is_not_the_sealed_one_is_refused() {
    let tar = archive();
    for (layer, promised, compression, what) in [
        (tar.clone(), tar[1..].to_vec(), LayerCompression::None, What::PlainDigest),
        (gzip(&tar), gzip(b""), LayerCompression::Gzip, What::PlainDigest),
        (tar.clone(), tar.clone(), LayerCompression::Gzip, What::Compression),
        ([gzip(&tar), b"more".to_vec()].concat(), tar.clone(), LayerCompression::Gzip, What::Compression),
    ] {
        let (ciphertext, sealed) = seal(&layer, &promised, compression);
        let mut output = Vec::new();
        assert_eq!(check(relay(sealed, &mut &ciphertext[..], &mut output).unwrap_err()), what);
        assert!(output.ends_with(&SPOILER));
    }
}

#[test]
fn a_reader_that_goes_away_and_a_writer_that_breaks_off_are_said() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Read for Gone {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let tar = archive();
    let (ciphertext, sealed) = seal(&tar, &tar, LayerCompression::None);
    assert!(matches!(relay(sealed, &mut &ciphertext[..], &mut Gone), Err(UnpackError::Write(_))));
    let (_, sealed) = seal(&tar, &tar, LayerCompression::None);
    assert!(matches!(relay(sealed, &mut Gone, &mut Vec::new()), Err(UnpackError::Read(_))));
}
