//! What the allocator keeps of memory that is free: little, and none for long. Without this, a flood of requests leaves the
//! process as large as it was at its peak, since glibc learns from large buffers to keep them. Nothing of what is allocated.
#![expect(
    unsafe_code,
    reason = "glibc's allocator is set by `mallopt` and trimmed by `malloc_trim`, which are foreign"
)]

use std::time::Duration;

/// How often free memory is given back.
const EVERY: Duration = Duration::from_secs(2);

/// Sets how the allocator of this process keeps free memory. To be called first thing in `main`, while there is one thread.
pub fn bound_kept_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Buffers of this size have pages of their own, which go when they are freed, in bytes. Setting it also keeps the
        /// allocator from raising it.
        const OWN_PAGES: libc::c_int = 128 << 10;
        /// How many heaps the threads share: each has its own free memory. With fewer, they wait for each other.
        const HEAPS: libc::c_int = 4;
        // SAFETY: sets two numbers of the allocator; no other thread runs that could read them meanwhile.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
            libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        }
    }
}

/// Gives free memory back to the system from time to time, for ever.
pub(crate) async fn keep_giving_back() {
    loop {
        tokio::time::sleep(EVERY).await;
        // It walks through the heaps.
        drop(tokio::task::spawn_blocking(give_back).await);
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes the allocator's own locks and only releases pages that nothing is allocated in.
    unsafe {
        libc::malloc_trim(0);
    }
}
