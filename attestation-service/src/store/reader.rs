//! Connections for questions: kept between two uses. The pool would ask each connection whether it lives, before every use and
//! after it, which is three turns to the database for one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

use super::{Store, StoreError};

/// How many connections wait here; the pool has more.
const MOST: usize = 6;
/// How long ago a connection may have been used to be taken for alive.
const FRESH: Duration = Duration::from_secs(1);

/// Connections that wait for the next use, each with when it was used last.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pool: AnyPool,
    idle: Arc<Mutex<Vec<Idle>>>,
}

type Idle = (PoolConnection<Any>, Instant);

/// A connection in use. One that is dropped without [`Self::keep`] goes back to the pool: it may have failed.
#[derive(Debug)]
pub(super) struct Reader {
    connection: PoolConnection<Any>,
    kept: Kept,
}

impl Kept {
    pub(super) fn of(pool: AnyPool) -> Self {
        Self { pool, idle: Arc::default() }
    }

    pub(super) async fn take(&self) -> Result<Reader, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One that was not in use just now goes back to the pool, which sees whether it lives.
        let connection = match idle.filter(|(_, used)| used.elapsed() < FRESH) {
            Some((connection, _)) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(Reader { connection, kept: self.clone() })
    }

    /// Gives all back to the pool. Once that is closed, none is kept any more.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Reader {
    pub(super) fn sql(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// All went well: the connection serves the next ones.
    pub(super) fn keep(self) {
        let Self { connection, kept } = self;
        let mut idle = kept.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST && !kept.pool.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }
}

impl Store {
    pub(super) async fn reader(&self) -> Result<Reader, StoreError> {
        self.readers.take().await
    }
}
