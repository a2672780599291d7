//! How much faster streams are hashed together than one after the other: a chunk each, in cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha256_lanes::{Sha256, update_together};

/// Bytes of a chunk: those of the pipelines.
const CHUNK: usize = 256 * 1024;

fn lanes(criterion: &mut Criterion) {
    let chunks: Vec<Vec<u8>> = (0..4_u8).map(|fill| vec![fill; CHUNK]).collect();
    for count in 1..=chunks.len() {
        let mut group = criterion.benchmark_group("SHA-256");
        // Of all streams together.
        group.throughput(Throughput::Bytes((count * CHUNK) as u64));
        let mut streams = vec![Sha256::new(); count];
        group.bench_function(format!("{count} together"), |bencher| {
            bencher.iter(|| {
                let mut lanes: Vec<_> =
                    streams.iter_mut().zip(&chunks).map(|(stream, chunk)| stream.lane(chunk)).collect();
                update_together(&mut lanes);
            });
        });
        group.finish();
    }
}

/// What sealing does: a chunk, and its ciphertext twice.
fn twins(criterion: &mut Criterion) {
    let chunks: Vec<Vec<u8>> = (0..2_u8).map(|fill| vec![fill; CHUNK]).collect();
    for lanes in [&[0, 0][..], &[1, 0, 0]] {
        let mut group = criterion.benchmark_group("SHA-256");
        group.throughput(Throughput::Bytes((lanes.len() * CHUNK) as u64));
        let mut streams = vec![Sha256::new(); lanes.len()];
        group.bench_function(format!("{} together, two of the same bytes", lanes.len()), |bencher| {
            bencher.iter(|| {
                let mut lanes: Vec<_> =
                    streams.iter_mut().zip(lanes).map(|(stream, chunk)| stream.lane(&chunks[*chunk])).collect();
                update_together(&mut lanes);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, lanes, twins);
criterion_main!(benches);
