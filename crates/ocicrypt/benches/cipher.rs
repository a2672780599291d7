//! The layer cipher and its halves over one chunk in cache and one out of it.
#![expect(clippy::unwrap_used, reason = "a bench that fails has no result")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ocicrypt::cipher::{AES_256_CTR_HMAC_SHA256, CtrStream, HmacStream, LayerKey, Nonce, by_name};

fn cipher(criterion: &mut Criterion) {
    for len in [64 * 1024, 1024 * 1024] {
        let mut group = criterion.benchmark_group(format!("{} KiB", len / 1024));
        group.throughput(Throughput::Bytes(len as u64));
        let mut chunk = vec![0x5a; len];
        let key = LayerKey::generate().unwrap();

        let mut ctr = CtrStream::new(&key, &Nonce::generate().unwrap()).unwrap();
        group.bench_function("AES-CTR", |bencher| bencher.iter(|| ctr.apply(&mut chunk).unwrap()));
        // From here on every chunk begins in the middle of a block.
        ctr.seek(1).unwrap();
        group.bench_function("AES-CTR unaligned", |bencher| bencher.iter(|| ctr.apply(&mut chunk).unwrap()));
        let mut mac = HmacStream::new(&key);
        group.bench_function("HMAC", |bencher| bencher.iter(|| mac.update(&chunk)));
        let mut encryptor = by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap();
        group.bench_function("both", |bencher| bencher.iter(|| encryptor.apply(&mut chunk).unwrap()));
        group.finish();
    }
}

criterion_group!(benches, cipher);
criterion_main!(benches);
