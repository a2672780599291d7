//! Connections on which nothing is asked: whoever opens one has to use it, or it is closed and its place is another's. Between
//! handshake and first request, and between two requests over HTTP/2, nothing else limits how long one stays.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long after the handshake the first request's headers may take.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept that was used before. Longer than clients keep theirs, so that it is they who close it and
/// no request is lost.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// How many requests of one connection are being answered.
#[derive(Clone, Debug)]
pub(super) struct Requests(watch::Sender<usize>);

/// Waits until a connection has been quiet for too long.
#[derive(Debug)]
pub(super) struct Quiet(watch::Receiver<usize>);

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Open(watch::Sender<usize>);

/// For a new connection.
pub(super) fn connection() -> (Requests, Quiet) {
    let (count, seen) = watch::channel(0);
    (Requests(count), Quiet(seen))
}

impl Requests {
    /// Counts a request.
    pub(super) fn begin(&self) -> Open {
        self.0.send_modify(|count| *count += 1);
        Open(self.0.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Quiet {
    /// Returns when no request has come for too long and none is being answered.
    pub(super) async fn too_long(self) {
        self.longer_than(FIRST_REQUEST_TIMEOUT, IDLE_TIMEOUT).await;
    }

    async fn longer_than(mut self, first_request: Duration, idle: Duration) {
        let mut limit = first_request;
        loop {
            let is_answering = *self.0.borrow() > 0;
            let changed =
                if is_answering { Ok(self.0.changed().await) } else { timeout(limit, self.0.changed()).await };
            match changed {
                Ok(Ok(())) => limit = idle,
                // The connection has ended by itself: it is not for us to say so.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const NEVER: Duration = Duration::from_hours(1);
    const WHILE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_quiet_before_its_first_request_and_after_its_last() {
        let (_requests, quiet) = connection();
        quiet.longer_than(SOON, NEVER).await;
        let (requests, quiet) = connection();
        drop(requests.begin());
        quiet.longer_than(NEVER, SOON).await;
    }

    #[tokio::test]
    async fn a_connection_is_not_quiet_while_a_request_is_answered_or_once_it_has_ended() {
        let (requests, quiet) = connection();
        let (first, _second) = (requests.begin(), requests.begin());
        drop(first);
        assert!(timeout(WHILE, quiet.longer_than(SOON, SOON)).await.is_err());
        let (requests, quiet) = connection();
        drop(requests);
        assert!(timeout(WHILE, quiet.longer_than(NEVER, NEVER)).await.is_err());
    }
}
