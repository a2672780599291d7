//! Telling whoever reads layers that they are not wanted any more.

use std::future::{Future, pending};

use tokio::sync::watch;

/// Ends the reading of layers: of all, or of all but the one that failed, whose own error is wanted.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<Stopped>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    All,
    AllBut(usize),
    None,
}

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(Stopped::None))
    }
}

impl Stop {
    /// Ends everything.
    pub(crate) fn all(&self) {
        self.0.send_replace(Stopped::All);
    }

    /// Ends every layer but this one.
    pub(crate) fn all_but(&self, layer: usize) {
        self.0.send_if_modified(|stopped| {
            let is_first = *stopped == Stopped::None;
            if is_first {
                *stopped = Stopped::AllBut(layer);
            }
            is_first
        });
    }

    /// Done once the reading of this layer has to end.
    pub(crate) fn of_layer(&self, layer: usize) -> impl Future<Output = ()> + Send + use<> {
        let mut stopped = self.0.subscribe();
        async move {
            let has_to_end = |stopped: &Stopped| match stopped {
                Stopped::All => true,
                Stopped::AllBut(other) => *other != layer,
                Stopped::None => false,
            };
            if stopped.wait_for(has_to_end).await.is_err() {
                // Nobody is left who could stop it.
                pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_done(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_layer_that_failed_is_read_on_and_the_others_are_not() {
        let stop = Stop::default();
        assert!(!is_done(stop.of_layer(0)));
        stop.all_but(1);
        stop.all_but(0);
        assert!(is_done(stop.of_layer(0)));
        assert!(!is_done(stop.of_layer(1)), "the first one that failed counts");
        stop.all();
        stop.all_but(1);
        assert!(is_done(stop.of_layer(1)));
    }

    #[test]
    fn what_nobody_can_stop_goes_on() {
        let future = Stop::default().of_layer(0);
        assert!(!is_done(future));
    }
}
